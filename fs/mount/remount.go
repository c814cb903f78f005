package mount

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// IsRemount reports whether a list of options, as given to -o, asks for a mount to be
// changed that is there.
func IsRemount(list string) bool { return slices.Contains(strings.Split(list, ","), "remount") }

// Remount changes what the kernel alone sees to of a mount: ro, noexec, suid and dev.
// The list is what mount(8) gives: with all options that the mount has, or only those
// that are to be others. What its daemon sees to stays as it is; to ask for other
// access times is an error.
func Remount(dir, list string) error {
	dir, err := find("remount", dir)
	if err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &PointError{"remount", dir, ErrRefused, "", err}
	}
	now := optionsOf(st.Flags)
	then, err := now.remounted(list)
	if err != nil {
		return err
	}
	if then.NoAtime != now.NoAtime {
		return &PointError{"remount", dir, ErrRefused, "access times are kept by the daemon: unmount the drive and mount it anew", nil}
	}
	err = unix.Mount("", dir, "", unix.MS_REMOUNT|then.kernelFlags(), "")
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return &PointError{"remount", dir, ErrPermission, "it needs CAP_SYS_ADMIN; else unmount the drive and mount it anew", err}
	case err != nil:
		return &PointError{"remount", dir, ErrRefused, "", err}
	}
	return nil
}

// optionsOf are those that a mount has, as far as its flags tell.
func optionsOf(flags int64) Options {
	has := func(flag int64) bool { return flags&flag != 0 }
	return Options{ReadOnly: has(unix.ST_RDONLY), NoAtime: has(unix.ST_NOATIME), NoExec: has(unix.ST_NOEXEC),
		SetUser: !has(unix.ST_NOSUID), Devices: !has(unix.ST_NODEV)}
}

// remounted is what a mount with options o becomes. A list with words of the kernel
// has all that the mount is to be, so that what it leaves out is not wanted.
func (o Options) remounted(list string) (Options, error) {
	words := strings.Split(list, ",")
	if slices.ContainsFunc(words, isKernelWord) {
		o.ReadOnly, o.NoExec, o.SetUser, o.Devices = false, false, true, true
	}
	words = slices.DeleteFunc(words, func(w string) bool { return w == "remount" || isKernelWord(w) })
	return o, o.Parse(strings.Join(words, ","))
}

// isKernelWord reports whether an option is one that the table of mounts has of each
// FUSE mount, and mount(8) from there.
func isKernelWord(w string) bool {
	name, _, _ := strings.Cut(w, "=")
	return slices.Contains([]string{"user_id", "group_id", "max_read", "blksize", "rootmode", "fd"}, name)
}
