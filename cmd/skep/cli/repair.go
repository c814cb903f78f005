package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"skep/cmd/skep/control"
	"skep/cmd/skep/daemon"
)

func (a *app) repairCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Pause, resume or look at the repair of what was lost",
		Example: `  skep repair status
  skep repair pause
  skep repair resume`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{errors.New("say what: skep repair pause, resume or status")}
		},
	}
	set := func(use, short string, pause bool) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd.Context(), "/v1/repair", control.Repair{Pause: pause}, nil)
		}}
	}
	var asJSON bool
	status := &cobra.Command{Use: "status", Short: "How repair goes", Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		var s control.Status
		if err := a.call(cmd.Context(), "/v1/status", daemon.StatusRequest{}, &s); err != nil {
			return err
		}
		if asJSON {
			return a.printJSON(map[string]any{"paused": s.RepairPaused, "repairing": s.Repairing, "packs": s.Packs,
				"packs_below_target": s.PacksBelowTarget, "shards_missing": s.ShardsMissing})
		}
		state := "runs"
		if s.RepairPaused {
			state = "is paused"
		}
		fmt.Fprintf(a.out, "Repair %s; %d of %d packs have fewer shards than they should, %d shards are missing, %d repairs are under way.\n",
			state, s.PacksBelowTarget, s.Packs, s.ShardsMissing, s.Repairing)
		return nil
	}}
	status.Flags().BoolVar(&asJSON, "json", false, "for scripts")
	cmd.AddCommand(set("pause", "Rebuild nothing until resumed", true), set("resume", "Go on rebuilding", false), status)
	return cmd
}
