package tree

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func atOnce(piece func() error) error { return piece() }

// However often Carry is broken off, the journal grows by what is written alone. What is
// changed meanwhile, and what was not, comes back when the index is lost.
func TestCarryBrokenOff(t *testing.T) {
	d := newDevice(t, Options{})
	want := map[Ino][]byte{}
	for i := range 3 * carryStep {
		content := pattern(1000+i, byte(i))
		want[d.write(Root, fmt.Sprint("before", i), content)] = content
	}
	size := d.st.JournalSize()
	end := errors.New("the daemon ends")
	for i := range 5 {
		pieces := 0
		_, _, err := d.Carry(func(piece func() error) error {
			if pieces++; pieces > 2 {
				return end
			}
			return piece()
		})
		if !errors.Is(err, end) {
			t.Fatalf("it was broken off: %v", err)
		}
		content := pattern(2000+i, byte(i))
		want[d.write(Root, fmt.Sprint("meanwhile", i), content)] = content
	}
	if n := d.st.JournalSize(); n != size+d.st.Step() {
		t.Errorf("a journal of %d bytes has %d now", size, n)
	}
	first, _, err := d.Carry(atOnce)
	must(t, err)
	must(t, d.st.Forget(first))
	if n := d.st.JournalSize(); n != d.st.Step() {
		t.Errorf("%d bytes are left of the journal", n)
	}
	again, _, err := d.Carry(atOnce)
	must(t, err)
	if again == first {
		t.Error("what was carried to the end does not begin anew")
	}
	d.loseIndex()
	for ino, content := range want {
		if got := d.read(ino); !bytes.Equal(got, content) {
			t.Errorf("inode %d: %d bytes came back of %d", ino, len(got), len(content))
		}
	}
}

// A commit that begins after Carry was broken off writes rows of files that are open for
// writing, alone. The journal that is left in the end has none of them without what
// belongs to it: in place of a row that is not there, the commit's counts.
func TestCommitAfterCarryBrokenOff(t *testing.T) {
	d, c := evictingDevice(t, Options{Passthrough: true})
	f := d.passed("f", os.O_WRONLY)
	ino := f.Ino()
	must(t, d.SetXattr(ctx, ino, "user.a", []byte("value"), 0))
	full := errors.New("the disk is full")
	if _, _, err := d.Carry(func(func() error) error { return full }); !errors.Is(err, full) {
		t.Fatalf("it was broken off: %v", err)
	}
	writeAlone(t, f, []byte("more"), 20000)
	c.take(t, d, ino)
	f.Release()
	c.take(t, d, ino)
	first, _, err := d.Carry(atOnce)
	must(t, err)
	must(t, d.st.Forget(first))
	d.loseIndex()
	if v, err := d.GetXattr(ctx, ino, "user.a"); !isStale(err) && string(v) != "value" {
		t.Errorf("the row is there, and its attribute is %q: %v", v, err)
	}
	for _, fault := range d.faults() {
		t.Error(fault)
	}
}

// loseIndex ends the process, deletes the index, and opens the tree on what the journal
// has.
func (d *device) loseIndex() {
	d.t.Helper()
	must(d.t, d.st.Close())
	must(d.t, os.RemoveAll(filepath.Join(d.dir, "state", "index")))
	d.open()
}

// The folders above what changes may have more attributes than one record of the journal
// takes.
func TestCarryDeepFolders(t *testing.T) {
	d := newDevice(t, Options{})
	const depth, attributes = 70, 4
	dir := Root
	for i := range depth {
		a, err := d.Mkdir(ctx, dir, "d", 0o755, Owner{})
		must(t, err)
		dir = a.Ino
		for j := range attributes {
			must(t, d.SetXattr(ctx, dir, fmt.Sprint("user.", j), pattern(60_000, byte(i)), 0))
		}
	}
	_, _, err := d.Carry(atOnce)
	must(t, err)
	_, err = d.Mkdir(ctx, dir, "below", 0o755, Owner{})
	must(t, err)
}

// Where rows cannot be read Carry does not end as if they were not there.
func TestCarryOfWhatCannotBeRead(t *testing.T) {
	d := newDevice(t, Options{})
	ino := d.write(Root, "a", pattern(1000, 1))
	must(t, d.st.Close())
	c := carrier{t: d.Tree, work: atOnce, seen: map[Ino]bool{}}
	if err := c.mark(Mark{Links, linkName(ino)}); err == nil {
		t.Error("what cannot be read counts as carried")
	}
}
