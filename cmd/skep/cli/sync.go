package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"skep/cmd/skep/control"
	"skep/cmd/skep/say"
)

func (a *app) syncCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Wait until everything is safely out",
		Long: `Returns when all that was closed or fsynced before is with enough holders that it
comes back even if this device is lost. Content that holders have lost since goes
out again, if it is here, and so do names that too few holders have left, and what
would be gone with one holder though there are more by now. Else it says what is
missing, and exits with 1. A holder that is silent counts as having what it took,
until it counts as dead (--dead-after of skep init, three days): of what was out before
and cannot be read while its holders are away, sync says so, and exits with 0.`,
		Example: `  skep sync
  skep sync --timeout 10m && poweroff`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout < 0 {
				return usageError{fmt.Errorf("--timeout %v: it cannot be negative", timeout)}
			}
			return a.sync(cmd.Context(), timeout)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "go on for this long while too few peers answer (default: 20 s; while anything goes out, without end)")
	return cmd
}

// sync waits until everything is out. It fails with a lostError if that is so, but
// holders have lost some of it since.
func (a *app) sync(ctx context.Context, timeout time.Duration) error {
	var out control.Synced
	err := a.waiting(ctx, func() error {
		return a.call(ctx, "/v1/sync", control.Sync{Timeout: timeout}, &out)
	}, uploading)
	switch {
	case errors.Is(err, context.Canceled):
		return errInterruptedSync
	case err == nil && out.Frail != "":
		fmt.Fprintln(a.errOut, out.Frail)
	}
	if err == nil && out.Away > 0 {
		fmt.Fprintf(a.errOut, "All changes are out, but %s that %s out before cannot be read now: too few holders answer.\n",
			say.Count(out.Away, "pack"), say.If(out.Away, "was", "were"))
	}
	if err == nil && len(out.InMotion) > 0 {
		fmt.Fprintf(a.errOut, "All is out. Written meanwhile, and out as a power cut would have left %s: %s\n",
			say.If(len(out.InMotion), "it", "them"), say.Paths(out.InMotion))
	}
	switch {
	case err == nil && out.Lost != "":
		return lostError{errors.New(out.Lost)}
	}
	return err
}

// lostError says that all is out, but that something is lost that was out before.
type lostError struct{ error }

var errInterruptedSync = errors.New("interrupted: not everything is known to be out; the daemon goes on uploading")

// uploading is how far an upload is, or, while none can begin, the reading of
// the block index.
func uploading(s control.Status) meter {
	if !s.Uploading && !s.Read && s.IndexTotal > 0 {
		return meter{what: "reading the index", done: s.IndexDone, of: s.IndexTotal}
	}
	if !s.Uploading {
		return meter{}
	}
	return meter{what: "uploading", done: s.UploadedNow, of: s.PendingBytes, bytes: true}
}
