package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"skep/cmd/skep/daemon"
	"skep/cmd/skep/fsck"
	"skep/cmd/skep/home"
	"skep/cmd/skep/say"
)

func (a *app) fsckCommand() *cobra.Command {
	var opt fsck.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Check everything that is stored on this device",
		Long: `Checks that what is stored on this device fits together: the journal, the tables,
every directory, the content of every file against what was committed, the packs
of metadata, the account of what is stored, the shards held for others. The newest
commit is read once more with another reader of its format than the drive's own,
and must look the same. It says what it found in terms of files and directories.
What can be made anew from the rest is made anew by opening the home; a damaged
shard of another is removed. The daemon must not be running (skep down).

With --remote, what is only with holders is fetched and checked, too, and they have
to show some of every shard that they should have: it says how many packs, and
files in them, have fewer shards than there should be, which files cannot be read,
and which holders do not have what they say. With --repair, holders are asked for
what is damaged here. What they have whole is mended: of content, the damaged pieces
of 1 MiB are let go of, and come again when they are needed; packs of metadata are
replaced. What they do not have stays as it is.

Exits with 0 if all is well, else with 1. A pack that lacks shards and can be read
is no problem: the daemon's repair sees to it. One that holders have too little of to
be read now is one.`,
		Example: `  skep down && skep fsck
  skep fsck --repair
  skep fsck --remote --json`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := a.fsck(cmd.Context(), opt)
			if err != nil {
				return err
			}
			if asJSON {
				err = a.printJSON(report)
			} else {
				a.printFsck(report, opt)
			}
			if err == nil && len(report.Problems) > 0 {
				err = fmt.Errorf("%s found", say.Count(len(report.Problems), "problem"))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&opt.Remote, "remote", false, "fetch and check what is only with holders, too")
	cmd.Flags().BoolVar(&opt.Repair, "repair", false, "mend what is damaged here and whole with holders")
	cmd.Flags().BoolVar(&asJSON, "json", false, "for scripts")
	return cmd
}

func (a *app) fsck(ctx context.Context, opt fsck.Options) (fsck.Report, error) {
	h, err := a.home()
	if err != nil {
		return fsck.Report{}, err
	}
	keys, err := a.unlock(ctx, h)
	if err != nil {
		return fsck.Report{}, err
	}
	g := a.gauge()
	defer g.end()
	opt.Progress = func(p fsck.Progress) { g.show(meter{p.Step, p.Done, p.Of, p.Bytes}) }
	report, err := daemon.Fsck(ctx, h, keys, opt)
	if errors.Is(err, home.ErrInUse) {
		err = fmt.Errorf("%w; end it first with skep down", err)
	}
	return report, err
}

func (a *app) printFsck(r fsck.Report, opt fsck.Options) {
	for _, p := range r.Problems {
		fmt.Fprintf(a.out, "%s: %s\n", say.Path(p.What), oneLine(strings.TrimPrefix(p.Problem, p.What+": ")))
	}
	fmt.Fprintf(a.out, "%s, %s, %s of content, %s of metadata, %s held for others: %s.\n",
		say.Count(r.Directories, "directory"), say.Count(r.Files, "file"), say.Bytes(r.Bytes), say.Count(r.PackFiles, "pack"),
		say.Count(r.HostedShards, "shard"), say.Count(len(r.Problems), "problem"))
	if r.Reread > 0 {
		fmt.Fprintf(a.out, "Another reader sees %s of the newest commit in the same way.\n", say.Count(r.Reread, "entry"))
	}
	if opt.Remote {
		fmt.Fprintf(a.out, "Holders were asked: %d of %s %s fewer shards than there should be, %d too few to be read; %s in the first, %s in the others.\n",
			r.PacksBelowTarget, say.Count(r.Packs, "pack"), say.If(r.PacksBelowTarget, "has", "have"), r.PacksLost,
			say.Count(r.FilesBelowTarget, "file"), say.Count(r.FilesLost, "file"))
	}
	if r.Unchecked > 0 {
		fmt.Fprintf(a.out, "What %s here should be only holders know: check with --remote.\n", say.Count(r.Unchecked, "file"))
	}
	if r.RereadAway > 0 {
		fmt.Fprintf(a.out, "What leads to %s of the newest commit only holders have: check with --remote.\n", say.Count(r.RereadAway, "entry"))
	}
}
