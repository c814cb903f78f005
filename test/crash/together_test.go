package crash

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/cache/tree"
	"skep/test/memdisk"
)

// A flush of one file fails while another one of the same file is asked for. The kernel
// tells one of the two alone: neither may succeed, nor any later one.
func TestFlushFailsBesideAnother(t *testing.T) {
	d := memdisk.New()
	drv := treeOn(t, d, newHolders())
	defer drv.close()
	f, _, err := drv.Tree.Create(ctx, tree.Root, "file", 0o644, os.O_RDWR, tree.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(ctx, bytes.Repeat([]byte("A"), 40000), 0, false); err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	wait := func(ended chan error) { // until it has flushed, or for a moment, as it may have to wait
		select {
		case err := <-ended:
			ended <- err
		case <-time.After(100 * time.Millisecond):
		}
	}
	once(d, false, "/files", func() {
		failed := false
		d.Fail(func(e memdisk.Event) error {
			if e.Kind == memdisk.Flush && e.Below("/files") && !failed {
				failed = true
				return unix.EIO
			}
			return nil
		})
		go func() { second <- f.Sync(ctx, false) }()
		wait(second)
	})
	if err := f.Sync(ctx, false); !errors.Is(err, unix.EIO) {
		t.Errorf("the one that was there first: %v", err)
	}
	if err := <-second; !errors.Is(err, unix.EIO) {
		t.Errorf("the one beside it: %v", err)
	}
	for range 2 {
		if err := f.Sync(ctx, false); !errors.Is(err, unix.EIO) {
			t.Errorf("fsync of what was lost: %v", err)
		}
	}
}
