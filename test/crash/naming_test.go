package crash

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/tree"
	"skep/test/memdisk"
)

// A file without a name that could not get one, for want of room, is as it was,
// and can get one later.
func TestNamingFailsOnAFullDisk(t *testing.T) {
	for what, content := range map[string]string{"small": "precious", "large": string(make([]byte, 20000)) + "precious"} {
		t.Run(what, func(t *testing.T) {
			d := memdisk.New()
			drv, err := open(d, newHolders(), false)
			if err != nil {
				t.Fatal(err)
			}
			f, _, err := drv.Tree.Tmpfile(ctx, tree.Root, 0o644, os.O_RDWR, tree.Owner{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(ctx, []byte(content), 0, false); err != nil {
				t.Fatal(err)
			}
			d.Fail(func(e memdisk.Event) error {
				if e.Kind == memdisk.Write && e.Below("/state/journal") {
					return unix.ENOSPC
				}
				return nil
			})
			if _, err := drv.Tree.Link(ctx, f.Ino(), tree.Root, "n"); !errors.Is(err, tree.ErrNoSpace) {
				t.Fatalf("named on a full disk: %v", err)
			}
			d.Fail(nil)
			p := make([]byte, len(content)+1)
			if n, err := f.ReadAt(ctx, p, 0); err != nil || string(p[:n]) != content {
				t.Errorf("%d bytes are left of %d, ending with %q: %v", n, len(content), p[max(0, n-8):n], err)
			}
			if _, err := drv.Tree.Link(ctx, f.Ino(), tree.Root, "n"); err != nil {
				t.Fatal(err)
			}
			f.Release()
			if got := contentOf(t, drv.Tree, "n"); string(got) != content {
				t.Errorf("%d bytes are under the name, of %d", len(got), len(content))
			}
		})
	}
}

// A file that the kernel wrote alone, and that was closed on a full disk, is
// committed all the same, as soon as there is room.
func TestClosedOnAFullDisk(t *testing.T) {
	d, h := memdisk.New(), newHolders()
	drv, err := open(d, h, true)
	if err != nil {
		t.Fatal(err)
	}
	f, a, err := drv.Tree.Create(ctx, tree.Root, "f", 0o644, os.O_WRONLY|os.O_EXCL, tree.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	fd, ok := f.Passthrough()
	if !ok {
		t.Fatal("the kernel does not write the file alone")
	}
	write := func(b byte) {
		t.Helper()
		if _, err := drv.Backing(fd).WriteAt(bytes.Repeat([]byte{b}, 50000), 0); err != nil {
			t.Fatal(err)
		}
	}
	commit := func() {
		t.Helper()
		if err := h.commit(drv.Tree, false, tree.Whole); err != nil {
			t.Fatal(err)
		}
	}
	write('A')
	commit()
	write('B')
	d.Fail(func(e memdisk.Event) error {
		if e.Kind == memdisk.Write && e.Below("/state/journal") {
			return unix.ENOSPC
		}
		return nil
	})
	f.Release()
	d.Fail(nil)
	commit()
	if n, err := drv.Tree.Evict(ctx, a.Ino, false); err != nil || n == 0 {
		t.Errorf("it is not committed: %v", err)
	}
	if err := drv.Tree.FinishEvictions(ctx); err != nil {
		t.Fatal(err)
	}
	if got := contentOf(t, drv.Tree, "f"); !bytes.Equal(got, bytes.Repeat([]byte("B"), 50000)) {
		t.Errorf("%d bytes were committed, beginning with %.1q", len(got), got)
	}
}
