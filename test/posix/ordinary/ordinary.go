package ordinary

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ID is the user and group of the second run: nobody.
const ID = 65534

// mark is set in the environment of the second run.
const mark = "SKEP_TEST_ORDINARY_DIR"

// Main is to be called by TestMain in place of m.Run.
func Main(m *testing.M) int {
	if dir := os.Getenv(mark); dir != "" {
		if err := Become(dir); err != nil {
			fmt.Fprintln(os.Stderr, "cannot become an ordinary user:", err)
			return 2
		}
	}
	return m.Run()
}

// Is reports whether this is the second run.
func Is() bool { return os.Getenv(mark) != "" }

// Run runs the calling test again as an ordinary user. It skips where that
// cannot be done: when not root, or without fusermount3.
func Run(t *testing.T) {
	t.Helper()
	RunNamed(t.Name())(t)
}

// RunNamed returns a subtest that runs the named test as an ordinary user.
func RunNamed(name string) func(*testing.T) {
	return func(t *testing.T) { run(t, name) }
}

func run(t *testing.T, name string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become an ordinary user in a mount namespace")
	}
	if _, err := exec.LookPath("fusermount3"); err != nil {
		t.Skip("fusermount3 is not installed")
	}
	dir, err := os.MkdirTemp("", "skep-ordinary-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	args := []string{"-test.run=^" + name + "$", "-test.v", "-test.timeout=5m"}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), mark+"="+dir, "TMPDIR="+dir, "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	t.Logf("as user %d:\n%s", ID, out)
	if err != nil {
		t.Errorf("as an ordinary user: %v", err)
	}
}

// Become prepares the mount namespace that this process has for itself, with dir
// for what it needs, and gives root away for good.
func Become(dir string) error {
	node := filepath.Join(dir, "fuse")
	if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 229))); err != nil {
		return fmt.Errorf("mknod: %w", err)
	}
	if err := os.Chmod(node, 0o666); err != nil {
		return err
	}
	if err := unix.Mount(node, "/dev/fuse", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind /dev/fuse: %w", err)
	}
	if err := os.Chown(dir, ID, ID); err != nil {
		return err
	}
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setgid(ID); err != nil {
		return err
	}
	if err := syscall.Setuid(ID); err != nil {
		return err
	}
	// Having changed users, the process would not be allowed to see itself.
	return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
}
