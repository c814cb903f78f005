package mount

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// statPatience is how long a mount may take to answer before it counts as there
// but silent.
const statPatience = 2 * time.Second

// maxDead is how many dead mounts on top of each other are cleaned up.
const maxDead = 16

// Check tells whether dir can be mounted on with these options, without doing
// so. A dead mount of ours is no obstacle: Mount cleans it up.
func Check(dir string, opt Options) error {
	dir, err := Locate("mount", dir)
	if err != nil {
		return err
	}
	dead, err := checkMounted(dir)
	if err != nil {
		return err
	}
	if dead {
		return checkSystem(dir)
	}
	return checkPoint(dir, opt)
}

// prepare makes sure that dir can be mounted on and returns its true path.
func prepare(dir string, opt Options, log *slog.Logger) (string, error) {
	dir, err := Locate("mount", dir)
	if err != nil {
		return "", err
	}
	for range maxDead {
		dead, err := checkMounted(dir)
		if err != nil {
			return "", err
		}
		if !dead {
			break
		}
		if err := detach(dir); err != nil {
			return "", &PointError{"mount", dir, ErrDead, "remove it with: fusermount3 -uz " + Quote(dir), err}
		}
		log.Info("cleaned up a mount that a crash had left", "dir", dir)
	}
	return dir, checkPoint(dir, opt)
}

// Locate resolves dir, for what op is going to do to it, to an absolute path without
// symbolic links. It does not touch what is mounted there.
func Locate(op, dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", op, dir, err)
	}
	if abs == "/" {
		return "/", nil
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", pathProblem(op, abs, err)
	}
	path := filepath.Join(parent, filepath.Base(abs))
	if _, mounted, err := topAt(path); err != nil || mounted {
		return path, err // a mount point is a directory
	}
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return "", pathProblem(op, abs, err)
	}
	return path, nil
}

// pathProblem explains why a path cannot be followed.
func pathProblem(op, dir string, err error) error {
	e := &PointError{Op: op, Dir: dir, Reason: ErrRefused, Err: err}
	switch {
	case errors.Is(err, unix.ENOTCONN):
		e.Reason, e.Do = ErrDead, "a directory above it is a dead mount: remove that with fusermount3 -uz first"
	case errors.Is(err, os.ErrNotExist):
		e.Reason, e.Do, e.Err = ErrNotExist, "create it first: mkdir -p "+Quote(dir), nil
	case errors.Is(err, unix.ENOTDIR):
		e.Reason, e.Do, e.Err = ErrNotDir, "choose an empty directory", nil
	case errors.Is(err, os.ErrPermission):
		e.Reason, e.Do, e.Err = ErrPermission, "choose a directory that you may reach", nil
	}
	return e
}

// checkMounted looks at what is mounted at dir: dead says that it is a mount of
// ours whose daemon is gone.
func checkMounted(dir string) (dead bool, err error) {
	p, mounted, err := topAt(dir)
	if err != nil || !mounted || !p.isFUSE() {
		return false, err
	}
	switch dead := isDead(dir); {
	case dead && p.ours():
		return true, nil
	case dead:
		return false, &PointError{"mount", dir, ErrDead,
			"it is a " + p.fstype + ", not ours; remove it with: fusermount3 -uz " + Quote(dir), nil}
	case p.ours():
		return false, &PointError{"mount", dir, ErrMounted, "unmount it first: skep umount " + Quote(dir), nil}
	}
	return false, nil
}

// isDead reports whether a mount has lost its daemon. It asks from the side and
// with a limit, as the daemon may be there and silent; and it asks the daemon,
// as the kernel may remember the attributes of the root for longer.
func isDead(dir string) bool {
	answer := make(chan error, 1)
	go func() {
		var st unix.Statx_t
		answer <- unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
	}()
	select {
	case err := <-answer:
		return errors.Is(err, unix.ENOTCONN)
	case <-time.After(statPatience):
		return false
	}
}

// checkPoint looks at a directory on which no dead mount lies.
func checkPoint(dir string, opt Options) error {
	st, err := os.Stat(dir)
	if err != nil {
		return pathProblem("mount", dir, err)
	}
	if !st.IsDir() {
		return &PointError{"mount", dir, ErrNotDir, "choose an empty directory", nil}
	}
	if err := checkOverlap(dir, opt.Home); err != nil {
		return err
	}
	if !opt.NonEmpty {
		if err := checkEmpty(dir); err != nil {
			return err
		}
	}
	if err := checkSystem(dir); err != nil || mayMount() {
		return err
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return &PointError{"mount", dir, ErrPermission, "choose a directory that belongs to you", nil}
	}
	if opt.AllowOther && !othersAllowed() {
		return allowsNoOther(dir)
	}
	return nil
}

// othersAllowed reports whether an ordinary user may have others look into a mount, as
// far as can be read.
func othersAllowed() bool {
	b, err := os.ReadFile("/etc/fuse.conf")
	return err != nil && !errors.Is(err, os.ErrNotExist) ||
		slices.ContainsFunc(strings.Split(string(b), "\n"), func(l string) bool { return strings.TrimSpace(l) == "user_allow_other" })
}

func checkEmpty(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return pathProblem("mount", dir, err)
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	switch {
	case len(names) > 0:
		return &PointError{"mount", dir, ErrNotEmpty,
			"choose another, or add -o nonempty to hide what is in it while the drive is mounted", nil}
	case err != nil && err != io.EOF:
		return pathProblem("mount", dir, err)
	}
	return nil
}

// checkOverlap refuses a mount that would hide the daemon's own files, and one
// in their midst. It compares directories, not names, so that no bind mount or
// link deceives it.
func checkOverlap(dir, home string) error {
	if home == "" {
		return nil
	}
	home, err := filepath.Abs(home)
	if err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	const do = "choose a directory outside of "
	switch {
	case isBelow(dir, home):
		return &PointError{"mount", dir, ErrInsideHome, do + Quote(home), nil}
	case isBelow(home, dir):
		return &PointError{"mount", dir, ErrHomeInside, "it would hide " + Quote(home) + " from the daemon: choose another directory", nil}
	}
	return nil
}

// isBelow reports whether path is dir or lies below it. A path that does not
// exist counts as where it would be.
func isBelow(path, dir string) bool {
	want, err := os.Stat(dir)
	if err != nil {
		return within(path, dir)
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	for {
		if st, err := os.Stat(path); err == nil && os.SameFile(st, want) {
			return true
		}
		up := filepath.Dir(path)
		if up == path {
			return false
		}
		path = up
	}
}

// Usable reports, as an error that says what to do, why this process could not
// mount anywhere.
func Usable() error {
	err := checkSystem("")
	if p, ok := errors.AsType[*PointError](err); ok {
		return fmt.Errorf("%w: %s", errors.Join(p.Unwrap()...), p.Do)
	}
	return err
}

// checkSystem looks whether this process can mount at all.
func checkSystem(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		return noDevice(dir, err)
	}
	if mayMount() {
		return nil
	}
	if _, err := helper(); err != nil {
		return &PointError{"mount", dir, ErrNoHelper,
			"install the package fuse3 of your system, or mount as root", nil}
	}
	if err := unix.Access(device, unix.R_OK|unix.W_OK); err != nil {
		return &PointError{"mount", dir, ErrPermission,
			"your user may not open " + device + ": ask for membership in its group, or for mode 0666", nil}
	}
	return nil
}

func noDevice(dir string, err error) error {
	return &PointError{"mount", dir, ErrNoDevice,
		"load the kernel module with: modprobe fuse; in a container, add --device " + device + " --cap-add SYS_ADMIN", err}
}

// helper finds the setuid program that mounts for ordinary users.
func helper() (string, error) {
	for _, name := range []string{"fusermount3", "/usr/bin/fusermount3", "/bin/fusermount3", "fusermount"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNoHelper
}

// mayMount reports whether this process may call mount(2) by itself.
func mayMount() bool { return capable(unix.CAP_SYS_ADMIN) }

// MayPassthrough reports whether the kernel may accept backing files from this
// process. It still refuses some; that shows when the first one is offered.
func MayPassthrough() bool { return capable(unix.CAP_SYS_ADMIN) }

// capable reports whether a capability is in effect for this process.
func capable(c uint) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var set [2]unix.CapUserData
	if err := unix.Capget(&hdr, &set[0]); err != nil {
		return os.Geteuid() == 0
	}
	return set[c/32].Effective&(1<<(c%32)) != 0
}

// Quote makes a path safe to be pasted into a shell.
func Quote(s string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("/._-+", c)
	}
	if strings.ContainsFunc(s, func(c rune) bool { return !plain(c) }) {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}
