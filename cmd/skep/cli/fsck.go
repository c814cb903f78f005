package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"skep/cmd/skep/daemon"
	"skep/cmd/skep/home"
)

func (a *app) fsckCommand() *cobra.Command {
	var remote, asJSON bool
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Check everything that is stored on this device",
		Long: `Checks that what is stored on this device fits together: the journal, the tables,
every directory, every file's content, the shards held for others. It says what
it found in terms of files, and changes nothing. The daemon must not be running
(skep down). With --remote, what is only with holders is fetched and checked,
too.`,
		Example: `  skep down && skep fsck
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
			report, err := daemon.Fsck(cmd.Context(), h, keys, remote)
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
				fmt.Fprintf(a.out, "%d directories, %d files, %s of content, %d hosted groups: %d problems.\n",
					report.Directories, report.Files, bytesOf(report.Bytes), report.HostedGroups, len(report.Problems))
			}
			if len(report.Problems) > 0 {
				return fmt.Errorf("%d problems were found", len(report.Problems))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&remote, "remote", false, "fetch and check what is only with holders, too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "for scripts")
	return cmd
}
