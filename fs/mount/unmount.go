package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A mount may be busy for a moment after its last user closed a file, so a
// polite unmount tries some times.
const (
	unmountTries = 5
	unmountPause = 30 * time.Millisecond
)

// Unmount takes a drive away that this or another process serves, or that a
// crash left. If it is in use, the error is a *BusyError.
func Unmount(ctx context.Context, dir string) error {
	dir, err := find("unmount", dir)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := release(dir)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return unmountProblem(dir, err)
		}
		if try == unmountTries {
			return whoUses(dir)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(unmountPause):
		}
	}
}

// ForceUnmount takes a drive away at once: what programs still do with it
// fails. As an ordinary user and without /sys/fs/fuse/connections it only
// detaches the drive; files that are open then end with the process that
// serves them.
func ForceUnmount(dir string) error {
	dir, err := find("unmount", dir)
	if err != nil {
		return err
	}
	p, ok, err := topAt(dir)
	if err == nil && ok {
		abort(p.dev)
	}
	return detachAborted(dir, p.dev)
}

// detachAborted detaches a mount whose connection was ended, of this device if that is
// known. Who serves it does the same, and may have been faster: what is gone is no error.
func detachAborted(dir, dev string) error {
	err := detach(dir)
	if err == nil {
		return nil
	}
	if p, ok, lookErr := topAt(dir); lookErr == nil && (!ok || dev != "" && p.dev != dev) {
		return nil
	}
	return err
}

// find resolves dir and makes sure that a mount of ours is there.
func find(op, dir string) (string, error) {
	dir, err := Locate(op, dir)
	if err != nil {
		return "", err
	}
	p, ok, err := topAt(dir)
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "", &PointError{op, dir, ErrNotMounted, "", nil}
	case !p.ours():
		return "", &PointError{op, dir, ErrNotMounted, "what is mounted there is a " + p.fstype + ", not a drive", nil}
	}
	return dir, nil
}

// release unmounts if nobody uses the mount, else the error is EBUSY.
func release(dir string) error {
	if mayMount() {
		return unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
	}
	return runHelper(dir, "-u")
}

// detach takes the mount out of the tree of directories, whoever uses it.
func detach(dir string) error {
	var err error
	if mayMount() {
		err = unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	} else {
		err = runHelper(dir, "-u", "-z")
	}
	return unmountProblem(dir, err)
}

// runHelper has fusermount3 unmount.
func runHelper(dir string, flags ...string) error {
	said, err := callHelper(nil, append(flags, "--", dir)...)
	switch {
	case err == nil || errors.Is(err, ErrNoHelper):
		return err
	case strings.Contains(said, "busy"):
		// The helper tells why in words only; that the mount is busy is the one
		// case that is told apart.
		return unix.EBUSY
	}
	return fmt.Errorf("%s: %w", said, err)
}

func unmountProblem(dir string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoHelper):
		return &PointError{"unmount", dir, ErrNoHelper, "install the package fuse3 of your system, or unmount as root", nil}
	case errors.Is(err, unix.EINVAL):
		return &PointError{"unmount", dir, ErrNotMounted, "", nil}
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return &PointError{"unmount", dir, ErrPermission, "only who mounted it, and root, may unmount it", nil}
	}
	return &PointError{"unmount", dir, ErrRefused, "", err}
}

// abort ends the connection of a mount, and with it every system call that
// waits for it, where the kernel's control files are there and ours to use.
func abort(dev string) {
	_, minor, ok := strings.Cut(dev, ":")
	if !ok {
		return
	}
	_ = os.WriteFile("/sys/fs/fuse/connections/"+minor+"/abort", []byte("1"), 0)
}
