package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"skep/cmd/skep/control"
	"skep/cmd/skep/daemon"
	"skep/cmd/skep/say"
	"skep/fs/mount"
)

func (a *app) umountCommand() *cobra.Command {
	var force, wait bool
	cmd := &cobra.Command{
		Use:     "umount DIR",
		Aliases: []string{"unmount"},
		Short:   "Take the folder away",
		Long: `Unmounts the drive. What is not with its holders yet stays on this device and goes
on being uploaded by the daemon; umount says how much that is. With --wait, the
drive is unmounted when everything is safely out, and not if that fails; if all is
out and holders have lost some of it for good, it is unmounted, and umount says so
and exits with 1. With --force, programs that use the folder lose it at once.`,
		Example: `  skep umount ~/drive
  skep umount --wait ~/drive && poweroff
  skep umount --force ~/drive`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			dir, err := filepath.Abs(argv[0])
			if err != nil {
				return err
			}
			var lost error // no reason to stay: no waiting brings it back
			if wait {
				lost = a.sync(cmd.Context(), 0)
				if _, ok := errors.AsType[lostError](lost); lost != nil && !ok {
					return lost
				}
			}
			if err := a.stepOut(dir); err != nil {
				return err
			}
			if err := a.umount(cmd.Context(), dir, force); err != nil {
				return err
			}
			return lost
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "even if programs use it")
	cmd.Flags().BoolVar(&wait, "wait", false, "first until everything is safely out")
	return cmd
}

// stepOut leaves the folder in which the command was given, and what it was given open: it
// may be in the drive at dir, which this process is not to keep busy.
func (a *app) stepOut(dir string) error {
	h, err := a.homeDirectory()
	if err != nil {
		return err
	}
	if a.homeDir, err = filepath.Abs(string(h)); err != nil {
		return err
	}
	mount.LetGo(dir)
	return os.Chdir("/")
}

// umount takes a mount away, and says what it leaves on this device only.
func (a *app) umount(ctx context.Context, dir string, force bool) error {
	var left control.Unmounted
	err := a.call(ctx, "/v1/umount", control.Unmount{Dir: dir, Force: force}, &left)
	if left.Held {
		fmt.Fprintln(a.errOut, "Detached; still held in another mount namespace (a container, a service), or by a program that had it open.\n"+
			"It ends with them, or with: skep down")
	}
	switch {
	case err != nil && takeDeadMount(ctx, dir, force), force && errors.Is(err, control.ErrSilent) && a.takeSilentMount(dir):
		return nil
	case err != nil:
		return err
	case left.Ends:
		a.tellLeft(left.Pending)
	case left.Files > 0:
		fmt.Fprintf(a.errOut, "Unmounted. On this device only: %s (%s); the daemon goes on uploading. skep sync waits for it.\n",
			say.Count(left.Files, "change"), say.Bytes(left.Bytes))
	}
	return nil
}

// takeDeadMount takes away a mount that a crash left, also one elsewhere than where
// the drive is mounted now; by force even if programs still use it. It reports
// whether it did.
func takeDeadMount(ctx context.Context, dir string, force bool) bool {
	if errors.Is(mount.Check(dir, mount.Options{NonEmpty: true}), mount.ErrMounted) {
		return false // the daemon of another home serves it
	}
	if force {
		return mount.ForceUnmount(dir) == nil
	}
	return mount.Unmount(ctx, dir) == nil
}

// takeSilentMount takes away by force what a daemon serves that does not answer. It reports
// whether it did.
func (a *app) takeSilentMount(dir string) bool {
	h, err := a.homeDirectory()
	if err != nil {
		return false
	}
	m, err := daemon.LastMount(h)
	return err == nil && m.IsAt(dir) && mount.ForceUnmount(dir) == nil
}
