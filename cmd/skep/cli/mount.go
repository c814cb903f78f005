package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"skep/chunker/keyring"
	"skep/cmd/skep/control"
	"skep/cmd/skep/daemon"
	"skep/cmd/skep/home"
	"skep/fs/mount"
	skephost "skep/net/host"
)

func (a *app) mountCommand() *cobra.Command {
	var foreground bool
	var bootstrap []string
	var options string
	var cache cacheFlag
	cmd := &cobra.Command{
		Use:   "mount DIR",
		Short: "Show the drive as a folder",
		Long: `Mounts the drive at DIR, an empty directory. The daemon of the home is started if
it is not there; it stays when the drive is unmounted, so that uploads go on and
what it holds for others stays up (skep down ends it). With --foreground, this
process is the daemon, and ends with the mount.`,
		Example: `  skep mount ~/drive
  skep mount ~/drive -o ro,allow_other
  skep mount --foreground /mnt/drive

In /etc/fstab, with the home of the drive in front:

  /var/lib/skep  /mnt/drive  fuse.skep  allow_other,nofail,_netdev  0  0`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			dir, err := filepath.Abs(argv[0])
			if err != nil {
				return err
			}
			if _, err := skephost.ParseAddrs(bootstrap); err != nil {
				return usageError{fmt.Errorf("--bootstrap: %w", err)}
			}
			m := control.Mount{Dir: dir, Options: options}
			if cmd.Flags().Changed("cache") {
				m.Cache = &cache.limit
			}
			if foreground {
				return a.mountHere(cmd.Context(), m, bootstrap)
			}
			return a.mountThere(cmd.Context(), m, bootstrap)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&foreground, "foreground", false, "stay in the foreground and end with the mount")
	f.StringArrayVar(&bootstrap, "bootstrap", nil, "full address of one more peer to join the swarm by; can be repeated")
	f.Var(&cache, "cache", cacheUsage+" (kept for later mounts)")
	f.StringVarP(&options, "options", "o", "", "mount options: ro, allow_other, noatime, noexec, suid, dev, nonempty, uid=N, gid=N")
	return cmd
}

// mountHere is the daemon until the mount is gone.
func (a *app) mountHere(ctx context.Context, m control.Mount, bootstrap []string) error {
	h, err := a.home()
	if err != nil {
		return err
	}
	keys, err := a.unlock(h)
	if err != nil {
		return err
	}
	d, err := daemon.Open(h, keys, bootstrap, daemon.NewLog(os.Stderr, false))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- d.Run(ctx) }()
	gone, err := d.MountAs(m)
	if err != nil {
		cancel()
		return errors.Join(err, <-ran)
	}
	if _, err := systemd.SdNotify(false, systemd.SdNotifyReady); err != nil {
		cancel()
		return errors.Join(fmt.Errorf("tell systemd that the drive is mounted: %w", err), <-ran)
	}
	select {
	case <-gone:
		cancel()
		return <-ran
	case err := <-ran:
		return err
	}
}

// mountThere has the daemon in the background mount the drive.
func (a *app) mountThere(ctx context.Context, m control.Mount, bootstrap []string) error {
	h, err := a.home()
	if err != nil {
		return err
	}
	if err := a.ensureDaemon(ctx, h, bootstrap); err != nil {
		return err
	}
	return a.call(ctx, "/v1/mount", m, nil)
}

// ensureDaemon starts the daemon of a home in the background, unless it runs.
func (a *app) ensureDaemon(ctx context.Context, h home.Dir, bootstrap []string) error {
	c := control.NewClient(h.Socket())
	if err := c.Call(ctx, "/v1/status", daemon.StatusRequest{}, nil); !errors.Is(err, control.ErrNotRunning) {
		return err
	}
	if _, err := h.Settings(); err != nil {
		if errors.Is(err, home.ErrNone) {
			return fmt.Errorf("%w; make a drive with skep init, or bring one back with skep recover", err)
		}
		return err
	}
	keys, err := a.unlock(h)
	if err != nil {
		return err
	}
	return a.spawn(ctx, h, keys, bootstrap)
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

func (a *app) umountCommand() *cobra.Command {
	var force, wait bool
	cmd := &cobra.Command{
		Use:     "umount DIR",
		Aliases: []string{"unmount"},
		Short:   "Take the folder away",
		Long: `Unmounts the drive. What is not with its holders yet stays on this device and goes
on being uploaded by the daemon; umount says how much that is. With --wait, the
drive is unmounted when everything is safely out, and not if that fails. With
--force, programs that use the folder lose it at once.`,
		Example: `  skep umount ~/drive
  skep umount --wait ~/drive && poweroff
  skep umount --force ~/drive`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			dir, err := filepath.Abs(argv[0])
			if err != nil {
				return err
			}
			if wait {
				if err := a.sync(cmd.Context(), 0); err != nil {
					return err
				}
			}
			err = a.call(cmd.Context(), "/v1/umount", control.Unmount{Dir: dir, Force: force}, nil)
			if errors.Is(err, control.ErrNotRunning) && takeDeadMount(cmd.Context(), dir) {
				return nil
			}
			if err != nil {
				return err
			}
			var s control.Status
			if err := a.call(cmd.Context(), "/v1/status", daemon.StatusRequest{}, &s); err == nil && s.PendingFiles > 0 {
				fmt.Fprintf(a.errOut, "Unmounted. %d changes (%s) are on this device only; the daemon goes on uploading them. skep sync waits for it.\n",
					s.PendingFiles, bytesOf(s.PendingBytes))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "even if programs use it")
	cmd.Flags().BoolVar(&wait, "wait", false, "first until everything is safely out")
	return cmd
}

// takeDeadMount takes away a mount that a crash left, and reports whether there
// was one.
func takeDeadMount(ctx context.Context, dir string) bool {
	if errors.Is(mount.Check(dir, mount.Options{NonEmpty: true}), mount.ErrMounted) {
		return false // the daemon of another home serves it
	}
	return mount.Unmount(ctx, dir) == nil
}

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
			d, err := daemon.Open(h, keys, bootstrap, daemon.NewLog(os.Stderr, false))
			if err != nil {
				return err
			}
			return d.Run(cmd.Context())
		},
	}
	cmd.Flags().StringArrayVar(&bootstrap, "bootstrap", nil, "")
	return cmd
}
