package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"skep/cmd/skep/control"
	"skep/cmd/skep/daemon"
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
			return a.down(cmd.Context(), h)
		},
	}
}

// down ends the daemon of a home, also one that takes no commands yet, as it is being
// opened, or any more, as it ends.
func (a *app) down(ctx context.Context, h home.Dir) error {
	if !h.Exists() {
		return nil
	}
	c := control.NewClient(h.Socket())
	for {
		var left control.Down
		switch err := c.Call(ctx, "/v1/down", struct{}{}, &left); {
		case err == nil:
			a.tellLeft(left.Pending)
			ended := processEnd(left.PID)
			err := waitDown(ctx, h, left.Began)
			if err == nil {
				ended()
			}
			return err
		case !errors.Is(err, control.ErrNotRunning):
			return err
		}
		if served, err := a.awaitHome(ctx, h); err != nil || !served {
			return err
		}
	}
}

// tellLeft says what an ending daemon leaves on this device only.
func (a *app) tellLeft(left control.Pending) {
	if left.Files > 0 {
		fmt.Fprintf(a.errOut, "On this device only: %s (%s); uploading goes on when the drive is mounted again.\n",
			say.Count(left.Files, "change"), say.Bytes(left.Bytes))
	}
}

// waitDown returns when the daemon that began then has let go of its home.
func waitDown(ctx context.Context, h home.Dir, began time.Time) error {
	for {
		release, err := h.Lock()
		if err == nil {
			release()
			return nil
		}
		if !errors.Is(err, home.ErrInUse) {
			return err
		}
		if isOther(ctx, h, began) {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// exitPatience is how long a process that has let go of its home may take to end, and
// with it whatever it has open.
const exitPatience = 5 * time.Second

// processEnd returns a function that waits until a process has ended that runs now, and
// has closed its files: until then the disk of its home cannot be unmounted.
func processEnd(pid int) (wait func()) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return func() {} // it has ended, or Linux has no such files
	}
	return func() {
		defer unix.Close(fd)
		until := time.Now().Add(exitPatience)
		for left := exitPatience; left > 0; left = time.Until(until) {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}
}

// isOther reports whether a daemon answers for a home that began at another time.
func isOther(ctx context.Context, h home.Dir, began time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var s control.Status
	err := control.NewClient(h.Socket()).Call(ctx, "/v1/status", daemon.StatusRequest{}, &s)
	return err == nil && !s.Began.Equal(began)
}
