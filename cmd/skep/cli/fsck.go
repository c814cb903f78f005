package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"skep/cmd/skep/daemon"
	"skep/cmd/skep/home"
)

func (a *app) fsckCommand() *cobra.Command {
	var opt daemon.FsckOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Check everything that is stored on this device",
		Long: `Checks that what is stored on this device fits together: the journal, the tables,
every directory, the content of every file against what was committed, the packs
of metadata, the account of what is stored, the shards held for others. It says
what it found in terms of files and directories. What can be made anew from the
rest is made anew by opening the home; a damaged shard of another is removed. The
daemon must not be running (skep down).

With --remote, what is only with holders is fetched and checked, too, and they are
asked what they have: how many packs, and files in them, have fewer shards than
they should, and which files cannot be read. With --repair, content and metadata
that are damaged here are let go of: they are fetched from their holders when they
are needed.

Exits with 0 if all is well, else with 1.`,
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
				err = fmt.Errorf("%d problems were found", len(report.Problems))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&opt.Remote, "remote", false, "fetch and check what is only with holders, too")
	cmd.Flags().BoolVar(&opt.Repair, "repair", false, "let go of what is damaged here, where holders have it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "for scripts")
	return cmd
}

func (a *app) fsck(ctx context.Context, opt daemon.FsckOptions) (daemon.FsckReport, error) {
	h, err := a.home()
	if err != nil {
		return daemon.FsckReport{}, err
	}
	keys, err := a.unlock(h)
	if err != nil {
		return daemon.FsckReport{}, err
	}
	report, err := daemon.Fsck(ctx, h, keys, opt)
	if errors.Is(err, home.ErrInUse) {
		err = fmt.Errorf("%w; end it first with skep down", err)
	}
	return report, err
}

func (a *app) printFsck(r daemon.FsckReport, opt daemon.FsckOptions) {
	for _, p := range r.Problems {
		fmt.Fprintf(a.out, "%s: %s\n", p.What, p.Problem)
	}
	fmt.Fprintf(a.out, "%d directories, %d files, %s of content, %d packs of metadata, %d shards held for others: %d problems.\n",
		r.Directories, r.Files, bytesOf(r.Bytes), r.PackFiles, r.HostedShards, len(r.Problems))
	if opt.Remote {
		fmt.Fprintf(a.out, "Holders were asked: %d of %d packs have fewer shards than they should, %d too few to be read; %d files lie in the first, %d in the others.\n",
			r.PacksBelowTarget, r.Packs, r.PacksLost, r.FilesBelowTarget, r.FilesLost)
	}
	if r.Unchecked > 0 {
		fmt.Fprintf(a.out, "What %d files here should be only holders know: check them with --remote.\n", r.Unchecked)
	}
}
