package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"skep/cmd/skep/control"
	"skep/cmd/skep/daemon"
	"skep/cmd/skep/home"
	"skep/fs/mount"
	skephost "skep/net/host"
)

func (a *app) mountCommand() *cobra.Command {
	var foreground bool
	var bootstrap []string
	var options, source string
	var cache cacheFlag
	cmd := &cobra.Command{
		Use:   "mount DIR",
		Short: "Show the drive as a folder",
		Long: `Mounts the drive at DIR, an empty directory. The daemon of the home is started if
it is not there; it stays when the drive is unmounted, so that uploads go on and
what it holds for others stays up (skep down ends it). With --foreground, this
process is the daemon, and ends with the mount; it says then what is on this
device only. Where the drive is mounted already, --bootstrap and --cache are taken
in, and nothing else changes.`,
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
			if mount.IsRemount(options) {
				return mount.Remount(dir, options)
			}
			if _, err := skephost.ParseAddrs(bootstrap); err != nil {
				return usageError{fmt.Errorf("--bootstrap: %w", err)}
			}
			if err := checkOptions(options); err != nil {
				return err
			}
			m := control.Mount{Dir: dir, Options: options, Source: source, Bootstrap: bootstrap}
			if cmd.Flags().Changed("cache") {
				m.Cache = &cache.limit
			}
			if foreground {
				return a.mountHere(cmd.Context(), m)
			}
			return a.mountThere(cmd.Context(), m)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&foreground, "foreground", false, "stay in the foreground and end with the mount")
	f.StringArrayVar(&bootstrap, "bootstrap", nil, "full address of one more peer to join the swarm by; can be repeated")
	f.Var(&cache, "cache", cacheUsage+" (kept for later mounts)")
	f.StringVarP(&options, "options", "o", "", "mount options: ro, allow_other, noatime, noexec, suid, dev, nonempty, uid=N, gid=N")
	f.StringVar(&source, sourceFlag, "", "what the table of mounts calls the drive")
	_ = f.MarkHidden(sourceFlag)
	return cmd
}

// sourceFlag is for mount(8), which gives the first word of a line of /etc/fstab.
const sourceFlag = "source"

// checkOptions is what is wrong with mount options, as a wrong use of the command line.
func checkOptions(list string) error {
	if err := new(mount.Options).Parse(list); err != nil && !mount.IsRemount(list) {
		return usageError{err}
	}
	return nil
}

// mountHere is the daemon until the mount is gone.
func (a *app) mountHere(ctx context.Context, m control.Mount) error {
	h, err := a.home()
	if err != nil {
		return err
	}
	keys, err := a.unlock(ctx, h)
	if err != nil {
		return err
	}
	served, err := a.awaitHome(ctx, h)
	if err == nil && served {
		err = fmt.Errorf("%w: %s; end it first with skep down", home.ErrInUse, h)
	}
	if err != nil {
		return err
	}
	d, err := daemon.Open(ctx, h, keys, m.Bootstrap, daemon.NewLog(os.Stderr))
	if err != nil {
		return err
	}
	caller := ctx
	ctx, cancel := context.WithCancel(caller)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- d.Run(ctx) }()
	gone, err := d.MountHere(m)
	if err != nil {
		cancel()
		err = errors.Join(err, <-ran)
		return cmp.Or(caller.Err(), err)
	}
	if _, err := systemd.SdNotify(false, systemd.SdNotifyReady); err != nil {
		cancel()
		return errors.Join(fmt.Errorf("tell systemd that the drive is mounted: %w", err), <-ran)
	}
	select {
	case <-gone:
		cancel()
		err = <-ran
	case err = <-ran:
	}
	a.tellLeft(d.Left())
	return err
}

// mountThere has the daemon in the background mount the drive.
func (a *app) mountThere(ctx context.Context, m control.Mount) error {
	h, err := a.home()
	if err != nil {
		return err
	}
	for {
		if err := a.ensureDaemon(ctx, h, m.Bootstrap, func(s home.Settings) error { return mountable(h, s, m) }); err != nil {
			return err
		}
		var mounted control.Mounted
		if err := a.call(ctx, "/v1/mount", m, &mounted); !errors.Is(err, control.ErrNotRunning) {
			if mounted.Again {
				fmt.Fprintf(a.out, "The drive is mounted at %s already; it has the new settings.\n", m.Dir)
			}
			a.tellAlone(mounted.Alone)
			return err
		}
		// It has just begun to end: another one follows it.
	}
}

// tellAlone says why no peer is there, and what that means; nothing if it is empty.
func (a *app) tellAlone(why string) {
	if why != "" {
		fmt.Fprintf(a.errOut, "skep: no peer answers yet, so what is written stays on this device until one does: %s\n", oneLine(why))
	}
}

// mountable is why a home's drive cannot be mounted as asked for, as far as that can
// be told without a daemon.
func mountable(h home.Dir, s home.Settings, m control.Mount) error {
	if s.Drive == "" {
		return daemon.ErrPeerOnly
	}
	opt := mount.Options{Home: string(h)}
	if m.Options != "" {
		if err := opt.Parse(m.Options); err != nil {
			return err
		}
	}
	return mount.Check(m.Dir, opt)
}
