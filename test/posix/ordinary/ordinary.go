package ordinary

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ID is the user and group of the second run: nobody.
const ID = 65534

// mark is set in the environment of the second run.
const mark = "SKEP_TEST_ORDINARY_DIR"

// disksMark names the sizes of the disks that the second run is given.
const disksMark = "SKEP_TEST_ORDINARY_DISKS"

// Disk is where the second run finds the disk of a size that it is given.
func Disk(size string) string { return filepath.Join(os.Getenv(mark), "disk-"+size) }

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

// RunNamed returns a subtest that runs the named test as an ordinary user, who is
// given a disk of each of these sizes, such as 64m.
func RunNamed(name string, disks ...string) func(*testing.T) {
	return func(t *testing.T) { run(t, name, disks) }
}

func run(t *testing.T, name string, disks []string) {
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
	cmd.Env = append(os.Environ(), mark+"="+dir, disksMark+"="+strings.Join(disks, " "), "TMPDIR="+dir, "HOME="+dir)
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
	for _, size := range strings.Fields(os.Getenv(disksMark)) {
		if err := makeDisk(size); err != nil {
			return fmt.Errorf("disk of %s: %w", size, err)
		}
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

// makeDisk mounts a file system of some size, which is the ordinary user's.
func makeDisk(size string) error {
	if err := os.Mkdir(Disk(size), 0o700); err != nil {
		return err
	}
	return unix.Mount("skep-test", Disk(size), "tmpfs", 0, fmt.Sprintf("size=%s,mode=0700,uid=%d,gid=%d", size, ID, ID))
}
