package tree

import (
	"errors"
	"testing"
)

// A pin holds what is below it, also what comes later, over restarts, and until
// it is taken away.
func TestPins(t *testing.T) {
	told := 0
	d, c := evictingDevice(t, Options{Pinned: func() { told++ }})
	dir, err := d.Mkdir(ctx, Root, "dir", 0o755, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	before := d.write(dir.Ino, "before", pattern(100_000, 1))
	if err := d.SetXattr(ctx, dir.Ino, PinXattr, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	after := d.write(dir.Ino, "after", pattern(100_000, 2))
	other := d.write(Root, "other", pattern(100_000, 3))
	c.take(t, d, before, after, other)
	d.restart()
	for ino, want := range map[Ino]string{dir.Ino: "1", before: "inherited", after: "inherited", other: ""} {
		v, err := d.GetXattr(ctx, ino, PinXattr)
		if string(v) != want || want == "" && !errors.Is(err, ErrNoAttr) {
			t.Errorf("inode %d: %q, %v; want %q", ino, v, err, want)
		}
	}
	if names, _ := d.ListXattr(ctx, dir.Ino); len(names) != 0 {
		t.Errorf("listed: %q", names)
	}
	if evict(t, d, before) != 0 || evict(t, d, after) != 0 || evict(t, d, other) == 0 {
		t.Error("what is pinned should stay, the rest go")
	}
	if err := d.Rename(ctx, dir.Ino, "after", Root, "after", 0); err != nil {
		t.Fatal(err)
	}
	if evict(t, d, after) == 0 {
		t.Error("moved out of the folder, it should go")
	}
	if err := d.Fetch(ctx, after); err != nil || onDisk(t, d) < 200_000 {
		t.Errorf("fetched: %v, the disk has %d", err, onDisk(t, d))
	}
	for _, v := range []string{"7", "yes", "inherited"} {
		if err := d.SetXattr(ctx, other, PinXattr, []byte(v), 0); !errors.Is(err, ErrInvalid) || d.Pinned(other) {
			t.Errorf("%q: %v, pinned %v", v, err, d.Pinned(other))
		}
	}
	if err := d.RemoveXattr(ctx, dir.Ino, PinXattr); err != nil {
		t.Fatal(err)
	}
	if err := d.RemoveXattr(ctx, dir.Ino, PinXattr); !errors.Is(err, ErrNoAttr) {
		t.Errorf("removed twice: %v", err)
	}
	if evict(t, d, before) == 0 || len(d.Pins()) != 0 || told != 2 {
		t.Errorf("unpinned, and yet %v; told %d times", d.Pins(), told)
	}
	if err := d.Pin(ctx, other, true); err != nil {
		t.Fatal(err)
	}
	if err := d.Unlink(ctx, Root, "other"); err != nil {
		t.Fatal(err)
	}
	if p := d.Pins(); len(p) != 0 {
		t.Errorf("pins of what is gone: %v", p)
	}
}
