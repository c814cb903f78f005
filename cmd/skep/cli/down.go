package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"skep/cmd/skep/control"
	"skep/cmd/skep/home"
	"skep/cmd/skep/say"
)

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the daemon",
		Long: `Ends the daemon of the home, and its mounts with it. What it holds for others is
away until it runs again. Nothing that was written is lost: what is not uploaded
yet is uploaded when it is back; down says how much that is.`,
		Example: `  skep sync && skep down`,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := a.home()
			if err != nil {
				return err
			}
			var left control.Pending
			err = a.call(cmd.Context(), "/v1/down", struct{}{}, &left)
			if errors.Is(err, control.ErrNotRunning) {
				return nil
			}
			if err != nil {
				return err
			}
			a.tellLeft(left)
			return waitDown(cmd.Context(), h)
		},
	}
}

// tellLeft says what an ending daemon leaves on this device only.
func (a *app) tellLeft(left control.Pending) {
	if left.Files > 0 {
		fmt.Fprintf(a.errOut, "On this device only: %s (%s); uploading goes on when the drive is mounted again.\n",
			say.Count(left.Files, "change"), say.Bytes(left.Bytes))
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
