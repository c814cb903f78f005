package tree

import (
	"bytes"
	"os"
	"testing"
)

// Large attributes stay in memory only where no table has them: of a file that lost its name
// and is open.
func TestLargeAttributesLeaveMemory(t *testing.T) {
	d := newDevice(t, Options{})
	ino := d.write(Root, "f", []byte("x"))
	large, small := pattern(60_000, 1), []byte("small")
	inMemory := func() int {
		in, _ := d.inodes.find(ino)
		defer d.release(in)
		in.mu.Lock()
		defer in.mu.Unlock()
		return xattrsSize(in.xattrs)
	}
	got := func(name string, want []byte) {
		t.Helper()
		if v, err := d.GetXattr(ctx, ino, name); err != nil || !bytes.Equal(v, want) {
			t.Errorf("%s: %d bytes, %v", name, len(v), err)
		}
	}
	must(t, d.SetXattr(ctx, ino, "user.small", small, 0))
	if inMemory() == 0 {
		t.Error("small ones are read each time")
	}
	must(t, d.SetXattr(ctx, ino, "user.large", large, 0))
	got("user.large", large)
	got("user.small", small)
	must(t, d.SetXattr(ctx, ino, "user.large", large, 0)) // no change
	if n := inMemory(); n != 0 {
		t.Errorf("%d bytes stay in memory", n)
	}
	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(t, err)
	defer f.Release()
	must(t, d.Unlink(ctx, Root, "f"))
	got("user.large", large)
	must(t, d.SetXattr(ctx, ino, "user.small", large, 0))
	got("user.large", large)
	got("user.small", large)
}
