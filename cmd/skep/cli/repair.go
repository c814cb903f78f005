package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"skep/cmd/skep/control"
	"skep/cmd/skep/daemon"
	"skep/cmd/skep/say"
)

func (a *app) repairCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Pause, resume or look at the repair of what was lost",
		Long: `Repair goes on by itself: shards that holders lost, or that were with peers which
are gone, are rebuilt and brought to others. It can be looked at, and paused.`,
		Example: `  skep repair status
  skep repair pause
  skep repair resume`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{errors.New("say what: skep repair pause, resume or status")}
		},
	}
	set := func(use, short, long string, pause bool) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Long: long, Example: "  skep repair " + use, Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd.Context(), "/v1/repair", control.Repair{Pause: pause}, nil)
		}}
	}
	var asJSON bool
	status := &cobra.Command{Use: "status", Short: "How repair goes", Long: `Tells whether repair runs, how many packs have fewer shards than they should, and
how many of these are being rebuilt.`, Example: `  skep repair status
  skep repair status --json`, Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
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
		fmt.Fprintf(a.out, "Repair %s; %d of %s %s fewer shards than there should be, %s %s missing, %s under way.\n",
			state, s.PacksBelowTarget, say.Count(s.Packs, "pack"), say.If(s.PacksBelowTarget, "has", "have"),
			say.Count(s.ShardsMissing, "shard"), say.If(s.ShardsMissing, "is", "are"), say.Count(s.Repairing, "repair"))
		if away := s.PacksLost + s.PacksAway; away > 0 {
			fmt.Fprintf(a.out, "%d of %s cannot be read now: too few holders answer.\n", away, say.Count(s.Packs, "pack"))
		}
		return nil
	}}
	status.Flags().BoolVar(&asJSON, "json", false, "for scripts")
	cmd.AddCommand(
		set("pause", "Rebuild nothing until resumed", `Rebuilds nothing until skep repair resume, also when the daemon is started again.
Repairs that are under way go on; holders are still asked what they have.`, true),
		set("resume", "Go on rebuilding", "Goes on with the repair of what was lost, after skep repair pause.", false),
		status)
	return cmd
}
