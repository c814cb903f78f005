package tree

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
)

// fewFiles is a disk of which no more files can be opened for some time.
type fewFiles struct {
	disk.FS
	none atomic.Bool
}

func (d *fewFiles) Open(name string, flags int) (disk.File, error) {
	if d.none.Load() {
		return nil, &os.PathError{Op: "open", Path: name, Err: unix.EMFILE}
	}
	return d.FS.Open(name, flags)
}

// That too many files are open is no damage of any.
func TestTooManyOpen(t *testing.T) {
	few := &fewFiles{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), fs: few}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	ino := d.write(Root, "f", pattern(100_000, 1))
	few.none.Store(true)
	if _, err := d.Open(ctx, ino, os.O_RDONLY); !errors.Is(err, unix.EMFILE) || errors.Is(err, ErrCorrupt) {
		t.Errorf("opened: %v", err)
	}
	few.none.Store(false)
	if got := d.read(ino); string(got) != string(pattern(100_000, 1)) {
		t.Error("it reads otherwise")
	}
}
