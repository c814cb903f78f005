package cli

import (
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
			h, err := a.home()
			if err != nil {
				return err
			}
			keys, err := a.unlock(h)
			if err != nil {
				return err
			}
			report, err := daemon.Fsck(cmd.Context(), h, keys, opt)
			if errors.Is(err, home.ErrInUse) {
				return fmt.Errorf("%w; end it first with skep down", err)
			}
			if err != nil {
				return err
			}
			if asJSON {
				if err := a.printJSON(report); err != nil {
					return err
				}
			} else {
				for _, p := range report.Problems {
					fmt.Fprintf(a.out, "%s: %s\n", p.What, p.Problem)
				}
				fmt.Fprintf(a.out, "%d directories, %d files, %s of content, %d packs of metadata, %d shards held for others: %d problems.\n",
					report.Directories, report.Files, bytesOf(report.Bytes), report.PackFiles, report.HostedShards, len(report.Problems))
			}
			if opt.Remote && !asJSON {
				fmt.Fprintf(a.out, "Holders were asked: %d of %d packs have fewer shards than they should, %d too few to be read; %d files lie in the first, %d in the others.\n",
					report.PacksBelowTarget, report.Packs, report.PacksLost, report.FilesBelowTarget, report.FilesLost)
			}
			if report.Unchecked > 0 && !asJSON {
				fmt.Fprintf(a.out, "What %d files here should be only holders know: check them with --remote.\n", report.Unchecked)
			}
			if len(report.Problems) > 0 {
				return fmt.Errorf("%d problems were found", len(report.Problems))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&opt.Remote, "remote", false, "fetch and check what is only with holders, too")
	cmd.Flags().BoolVar(&opt.Repair, "repair", false, "let go of what is damaged here, where holders have it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "for scripts")
	return cmd
}
