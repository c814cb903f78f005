package tree

import (
	"bytes"
	"os"
	"testing"
)

// contentRows counts content rows, and the rows that name those left over.
func (d *device) contentRows() (content, left int) {
	d.t.Helper()
	for table, n := range map[byte]*int{tableInline: &content, tableLeft: &left} {
		must(d.t, d.st.Scan([]byte{table}, []byte{table + 1}, func(_, _ []byte) bool {
			*n++
			return true
		}))
	}
	return content, left
}

func (d *device) wantContentRows(content, left int) {
	d.t.Helper()
	if c, l := d.contentRows(); c != content || l != left {
		d.t.Errorf("%d content rows and %d left over, want %d and %d", c, l, content, left)
	}
}

// The content of a small file that nobody has open stays in the tables until
// nobody can want it, and then it goes.
func TestLeftovers(t *testing.T) {
	d := newDevice(t, Options{})
	content := pattern(1000, 1)
	ino := d.write(Root, "file", content)
	a, err := d.Symlink(ctx, Root, "link", "target", Owner{})
	must(t, err)
	must(t, d.Unlink(ctx, Root, "file"))
	must(t, d.Unlink(ctx, Root, "link"))
	must(t, d.Sync())
	d.wantContentRows(2, 2)
	if target, err := d.Readlink(ctx, a.Ino); err != nil || target != "target" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	d.Forget(a.Ino)
	must(t, d.Sync())
	d.wantContentRows(1, 1)

	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(t, err)
	must(t, d.Sync())
	d.wantContentRows(0, 0)
	writeAt(t, f, []byte("!"), 500)
	content[500] = '!'
	if got := d.read(ino); !bytes.Equal(got, content) {
		t.Error("opened after it was removed, it reads wrong")
	}
	f.Release()
	d.Forget(ino)
	must(t, d.Sync())
	d.wantContentRows(0, 0)
}

// A removed file may still be shortened by who found its name before.
func TestLeftoverIsShortened(t *testing.T) {
	d := newDevice(t, Options{})
	content := pattern(1000, 1)
	for _, size := range []int64{0, 10, 2000} {
		ino := d.write(Root, "file", content)
		must(t, d.Unlink(ctx, Root, "file"))
		_, err := d.SetAttr(ctx, ino, SetAttr{Size: &size})
		must(t, err)
		want := make([]byte, size)
		copy(want, content)
		if got := d.read(ino); !bytes.Equal(got, want) {
			t.Errorf("with %d bytes it reads wrong", size)
		}
		d.Forget(ino)
	}
	must(t, d.Sync())
	d.wantContentRows(0, 0)
}

// The end of the process leaves no content behind that nobody can want.
func TestLeftoversOfAnEarlierRun(t *testing.T) {
	d := newDevice(t, Options{})
	d.write(Root, "stays", pattern(10, 1))
	for i, name := range names(leftStep + 10) {
		ino := d.write(Root, name, pattern(10, 1))
		must(t, d.Unlink(ctx, Root, name))
		if i%2 == 0 {
			d.Forget(ino)
		}
	}
	d.restart()
	must(t, d.Sync())
	d.wantContentRows(1, 0)
}

// Removing a file whose rows the journal has forgotten writes none of its content
// again.
func TestRemovingCarriesNothing(t *testing.T) {
	d := newDevice(t, Options{})
	d.write(Root, "file", pattern(10_000, 1))
	d.write(Root, "replaced", pattern(10_000, 1))
	_, _, err := d.Carry(func(piece func() error) error { return piece() })
	must(t, err)
	must(t, d.Rename(ctx, Root, "file", Root, "other", 0)) // this carries its content
	_, _, err = d.Carry(func(piece func() error) error { return piece() })
	must(t, err)
	before := d.st.Appended()
	d.write(Root, "small", []byte("x"))
	must(t, d.Rename(ctx, Root, "small", Root, "replaced", 0))
	must(t, d.Unlink(ctx, Root, "other"))
	if n := d.st.Appended() - before; n > 4000 {
		t.Errorf("removing two files wrote %d bytes", n)
	}
}
