package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"skep/chunker/keyring"
	"skep/cmd/skep/control"
	"skep/cmd/skep/daemon"
	"skep/cmd/skep/home"
)

// ensureDaemon starts the daemon of a home in the background, unless it runs, or
// check says that there is nothing for it to do.
func (a *app) ensureDaemon(ctx context.Context, h home.Dir, bootstrap []string, check func(home.Settings) error) error {
	s, err := h.Settings()
	if err != nil {
		if errors.Is(err, home.ErrNone) {
			return noHomeError{err}
		}
		return err
	}
	if served, err := a.awaitHome(ctx, h); served || err != nil {
		return err
	}
	if err := check(s); err != nil {
		return err
	}
	keys, err := a.unlock(ctx, h)
	if err != nil {
		return err
	}
	return a.spawn(ctx, h, keys, bootstrap)
}

// endPatience is how long a command waits for a daemon that has a home and does
// not answer: it is ending, or being opened. One that was killed and cannot end
// is helped to. Above waitSilently, the command says so.
const (
	endPatience  = time.Minute
	waitSilently = time.Second
)

// awaitHome returns when a daemon answers for a home, which it reports, or nobody
// has the home any more.
func (a *app) awaitHome(ctx context.Context, h home.Dir) (served bool, err error) {
	caller := ctx
	ctx, cancel := context.WithTimeout(caller, endPatience)
	defer cancel()
	say := time.NewTimer(waitSilently)
	defer say.Stop()
	c := control.NewClient(h.Socket())
	for helped := false; ; {
		err := c.Call(ctx, "/v1/status", daemon.StatusRequest{}, nil)
		switch {
		case caller.Err() != nil:
			return false, caller.Err()
		case ctx.Err() != nil:
			return false, heldError{h}
		case !errors.Is(err, control.ErrNotRunning):
			return true, err
		}
		release, err := h.Lock()
		if err == nil {
			release()
			return false, nil
		}
		if !errors.Is(err, home.ErrInUse) {
			return false, err
		}
		if !helped {
			helped = a.endKilled(h)
		}
		select {
		case <-say.C:
			fmt.Fprintln(a.errOut, "waiting for the daemon that still has this home …")
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// heldError says that a process has a home and answers nobody.
type heldError struct{ home home.Dir }

func (e heldError) Error() string {
	return fmt.Sprintf("%s has the home %s, and takes no commands: it starts, ends, or is skep fsck; try again", cmp.Or(e.home.Holder(), "a skep process"), e.home)
}

func (heldError) Is(target error) bool { return target == home.ErrInUse }

// endKilled lets the daemon of a home end that was killed and cannot. It reports whether
// that was tried.
func (a *app) endKilled(h home.Dir) bool {
	killed, err := daemon.EndKilled(h)
	switch {
	case err != nil:
		fmt.Fprintf(a.errOut, "skep: what a daemon left that was killed cannot be ended: %v\n", err)
	case killed:
		fmt.Fprintln(a.errOut, "skep: a daemon that was killed could not end; its mount was ended by force")
	}
	return killed || err != nil
}

// spawn starts the daemon and waits until it answers or has failed.
func (a *app) spawn(ctx context.Context, h home.Dir, keys keyring.Local, bootstrap []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(h.Log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("log of the daemon: %w", err)
	}
	defer log.Close()
	abs, err := filepath.Abs(string(h))
	if err != nil {
		return err
	}
	argv := []string{"daemon", "--home", abs}
	for _, b := range bootstrap {
		argv = append(argv, "--bootstrap", b)
	}
	// The keys go through a pipe: neither arguments nor files show them.
	sealed, err := keyring.EncodeLocal(keys, nil, keyring.Cost{})
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, argv...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stdin = strings.NewReader(string(sealed))
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	failed := make(chan error, 1)
	go func() { failed <- cmd.Wait() }()
	c := control.NewClient(h.Socket())
	for {
		if err := c.Call(ctx, "/v1/status", daemon.StatusRequest{}, nil); !errors.Is(err, control.ErrNotRunning) {
			return err
		}
		select {
		case <-failed:
			if served, err := a.awaitHome(ctx, h); served || err != nil {
				return err // another command started one at the same time
			}
			return fmt.Errorf("the daemon did not start: %s", lastLine(h.Log()))
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lastLine is the end of a log, where the reason is.
func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "see " + path
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], "skep: ")
}

// daemonCommand is what mount starts in the background.
func (a *app) daemonCommand() *cobra.Command {
	var bootstrap []string
	cmd := &cobra.Command{
		Use:    "daemon",
		Short:  "Serve a home; keys come on standard input",
		Hidden: true,
		Args:   args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := a.home()
			if err != nil {
				return err
			}
			b, err := readAllStdin()
			if err != nil {
				return err
			}
			keys, err := keyring.DecodeLocal(b, nil)
			if err != nil {
				return err
			}
			d, err := daemon.Open(cmd.Context(), h, keys, bootstrap, daemon.NewLog(daemon.BoundLog(os.Stderr)))
			if err != nil {
				return err
			}
			return d.Run(cmd.Context())
		},
	}
	cmd.Flags().StringArrayVar(&bootstrap, "bootstrap", nil, "")
	return cmd
}

// readAllStdin reads what came through the pipe that started the daemon.
func readAllStdin() ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(os.Stdin, keyring.MaxLocal+1))
	if err != nil {
		return nil, fmt.Errorf("keys on standard input: %w", err)
	}
	return b, nil
}
