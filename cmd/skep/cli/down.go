package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"skep/cmd/skep/control"
	"skep/cmd/skep/home"
)

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the daemon",
		Long: `Ends the daemon of the home, and its mounts with it. What it holds for others is
away until it runs again. Nothing that was written is lost: what is not uploaded
yet is uploaded when it is back.`,
		Example: `  skep sync && skep down`,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := a.home()
			if err != nil {
				return err
			}
			err = a.call(cmd.Context(), "/v1/down", struct{}{}, nil)
			if errors.Is(err, control.ErrNotRunning) {
				return nil
			}
			if err != nil {
				return err
			}
			return waitDown(cmd.Context(), h)
		},
	}
}

// waitDown returns when the daemon has let go of its home.
func waitDown(ctx context.Context, h home.Dir) error {
	for {
		release, err := h.Lock()
		if err == nil {
			release()
			return nil
		}
		if !errors.Is(err, home.ErrInUse) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
