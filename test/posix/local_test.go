package posix

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What a drive is compared with is ext4, and what it can do depends on what it lies on:
// so all lies on ext4. Where temporary files do not, root makes one in a file for them.

func isExt4(dir string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.EXT4_SUPER_MAGIC
}

// localDir makes a folder on ext4.
func localDir(t *testing.T) string {
	t.Helper()
	if !isExt4(os.TempDir()) {
		t.Skipf("%s is not on ext4, and only root can make one; TMPDIR may name another folder", os.TempDir())
	}
	dir, err := os.MkdirTemp("", "skep-local-")
	must(t, err)
	t.Cleanup(func() { removeAll(t, dir) })
	return dir
}

// useExt4 has temporary files lie on ext4, if it can, until what it returns is called.
func useExt4() (end func(), err error) {
	if isExt4(os.TempDir()) || os.Geteuid() != 0 {
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "skep-ext4-")
	if err != nil {
		return nil, err
	}
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mounted")
	end = func() { _ = unix.Unmount(at, unix.MNT_DETACH); _ = os.RemoveAll(dir) }
	err = errors.Join(os.Chmod(dir, 0o755), os.Mkdir(at, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, 4<<30))
	for _, argv := range [][]string{{"mkfs.ext4", "-q", "-F", "-b", "4096", image}, {"mount", "-o", "loop", image, at}, {"chmod", "1777", at}} {
		if err != nil {
			break
		}
		if out, failed := exec.Command(argv[0], argv[1:]...).CombinedOutput(); failed != nil {
			err = fmt.Errorf("%s is not on ext4, and none can be made: %s: %w: %s", os.TempDir(), argv[0], failed, out)
		}
	}
	if err != nil {
		end()
		return nil, err
	}
	return end, os.Setenv("TMPDIR", at)
}
