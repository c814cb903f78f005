package blockdev

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// name is that of the filesystem that a loop device lies on.
const name = "blockdev"

// sweep takes away the devices that nobody serves any more, as whatever should have
// taken them away was killed, too. It is done before the next device is made and not
// by a mount namespace that ends with its process, for that would wait for ever: the
// kernel would unmount what lies on the device before it closes what answers for the
// device.
func sweep() error {
	all, err := mounts()
	for _, m := range all {
		if m.kind == "fuse."+name && dead(m.dir) {
			takeAway(all, m.dir)
		}
	}
	return err
}

// takeAway detaches whatever is mounted in the directory that has a device's: it
// belongs to the same test. Nobody may answer for the device any more.
func takeAway(all []mounted, dir string) {
	test := filepath.Dir(dir) + "/"
	for _, m := range slices.Backward(all) {
		if strings.HasPrefix(m.dir, test) {
			_ = unix.Unmount(m.dir, unix.MNT_DETACH) // of two that do it, one comes late
		}
	}
}

// dead reports whether nobody answers for a filesystem any more.
func dead(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == unix.ENOTCONN
}

type mounted struct{ dir, kind string }

// mounts are those that there are, in the order in which they were made.
func mounts() (all []mounted, err error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		where, what, _ := strings.Cut(line, " - ")
		if w := strings.Fields(where); len(w) > 4 {
			kind, _, _ := strings.Cut(what, " ")
			all = append(all, mounted{w[4], kind})
		}
	}
	return all, err
}
