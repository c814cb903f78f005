package tree

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"skep/cache/backing"
	"skep/cache/disk"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// partly is a file of which only the second half is here, and a word was written to the
// first.
func partly(t *testing.T, d *device, c *committed, want []byte) Ino {
	ino := c.gone(t, d, want)
	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(t, err)
	b := make([]byte, len(want)/2)
	_, err = f.ReadAt(ctx, b, int64(len(want)/2))
	must(t, err)
	writeAt(t, f, []byte("newer"), 3)
	copy(want[3:], "newer")
	f.Release()
	must(t, d.SyncAll())
	d.rest()
	return ino
}

// What is here of a file stays known where a commit that took it ends after the file has
// left memory.
func TestSettledWhenItHadLeftMemory(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	want := pattern(8*dag.ChunkSize, 1)
	ino := partly(t, d, c, want)
	cut, err := d.Cut()
	must(t, err)
	defer cut.Close()
	in, _, err := cut.Inode(ino)
	must(t, err)
	f, err := cut.OpenFile(ctx, in, Whole)
	must(t, err)
	whole := make([]byte, f.Size)
	must(t, errors.Join(f.ReadAt(ctx, whole, 0), f.Taken()))
	f.Close()
	i, _ := d.inodes.find(ino)
	d.release(i)
	s := d.inodes.shard(ino)
	s.mu.Lock()
	if i.refs.n.Load() != 0 {
		t.Fatal("somebody holds the file")
	}
	d.inodes.drop(s, i)
	s.mu.Unlock()
	l := link.Link{Codec: link.DagPB, Hash: link.Hash{7}}
	must(t, errors.Join(cut.Settle(ctx, []Settled{{Ino: ino, Content: l, Size: f.Size}}), cut.ClearMarks(nil)))
	clear(c.files) // nobody has anything any more
	g, err := d.Open(ctx, ino, os.O_RDONLY)
	must(t, err)
	defer g.Release()
	b := make([]byte, len(want)/2)
	if _, err := g.ReadAt(ctx, b, int64(len(b))); err != nil || !bytes.Equal(b, want[len(b):]) {
		t.Errorf("what is here cannot be read: %v", err)
	}
}

// A commit takes no more than what may have changed of a file that is partly here: after
// the process was killed beside it, and after a commit took that and another start.
func TestLittleIsTakenOfWhatIsPartlyHere(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	ino := c.gone(t, d, pattern(32*dag.ChunkSize, 1))
	write := func(chunk int64) *File {
		f, err := d.Open(ctx, ino, os.O_RDWR)
		must(t, err)
		writeAt(t, f, []byte("newer"), chunk*dag.ChunkSize+3)
		must(t, f.Sync(ctx, false))
		return f
	}
	check := func(when string, chunk int64) {
		t.Helper()
		d.rest()
		cut, err := d.Cut()
		must(t, err)
		defer cut.Close()
		in, _, err := cut.Inode(ino)
		must(t, err)
		f, err := cut.OpenFile(ctx, in, Whole)
		must(t, err)
		defer f.Close()
		if got, want := f.Changed(), []backing.Range{{From: chunk * dag.ChunkSize, To: (chunk + 1) * dag.ChunkSize}}; !slices.Equal(got, want) {
			t.Errorf("%s a commit takes %v, should take %v", when, got, want)
		}
	}
	write(0)
	d.restart() // killed
	check("after a kill", 0)
	c.take(t, d, ino)
	d.Close()
	d.restart()
	write(5).Release()
	check("after another start", 5)
}

// Programs that may do as their owner lose that for good before the kernel writes them.
func TestPrivilegesGoBeforeTheKernelWrites(t *testing.T) {
	for _, kill := range []SetAttr{{KillOwner: true}, {KillPriv: true}} {
		d := newDevice(t, Options{})
		f := d.create(Root, "program")
		mode := uint32(0o4755)
		_, err := d.SetAttr(ctx, f.Ino(), SetAttr{Mode: &mode})
		must(t, err)
		_, err = d.SetAttr(ctx, f.Ino(), kill)
		must(t, err)
		if !d.st.Durable(d.st.Seq()) {
			t.Errorf("%+v is not on the disk", kill)
		}
		f.Release()
	}
}

// What a file grew by, and a flush promised, is there after a shutdown in order though
// the journal had no room when the file was closed.
func TestClosedWithoutRoomThenEndedInOrder(t *testing.T) {
	full := &fullJournal{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), fs: full}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	want := pattern(150_000, 1)
	ino := d.write(Root, "log", want[:100_000])
	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(t, err)
	writeAt(t, f, want[100_000:], 100_000)
	full.full = true
	must(t, f.Sync(ctx, false))
	f.Release()
	full.full = false
	must(t, d.SyncAll())
	d.Close()
	d.restart()
	if got := d.read(ino); !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d that a flush made safe", len(got), len(want))
	}
}

// takeAsIs makes a commit of a file, in its record alone if it is tiny.
func (c *committed) takeAsIs(t *testing.T, d *device, ino Ino) (content []byte) {
	t.Helper()
	d.rest()
	cut, err := d.Cut()
	must(t, err)
	defer cut.Close()
	in, _, err := cut.Inode(ino)
	must(t, err)
	f, err := cut.OpenFile(ctx, in, Whole)
	must(t, err)
	defer f.Close()
	s := Settled{Ino: ino, Size: f.Size}
	content = make([]byte, f.Size)
	must(t, errors.Join(f.ReadAt(ctx, content, 0), f.Taken()))
	if !f.IsTiny() {
		s.Content = link.Link{Codec: link.DagPB, Hash: link.Hash{byte(ino), 1, 1}}
		c.files[s.Content] = bytes.Clone(content)
	}
	must(t, errors.Join(cut.Settle(ctx, []Settled{s}), cut.ClearMarks(nil)))
	return content
}

// A small file of which a block was let go of, and that was changed and then fetched, can be
// read when a commit took it and the process was killed, whether the tables knew that all
// of it is here or not.
func TestLittleThatWasFetchedIsTaken(t *testing.T) {
	for _, known := range []bool{false, true} {
		d, c := evictingDevice(t, Options{})
		want := pattern(400, 1)
		ino := d.write(Root, "f", want)
		c.take(t, d, ino) // as a block, as of one that the kernel was writing
		_, err := d.EvictSmall(ctx, ino)
		must(t, err)
		f, err := d.Open(ctx, ino, os.O_RDWR)
		must(t, err)
		writeAt(t, f, []byte("newer"), 0)
		copy(want, "newer")
		must(t, d.Sync())
		if got := d.read(ino); !bytes.Equal(got, want) {
			t.Fatal("something else is read")
		}
		if known {
			d.recordFetched()
		}
		if got := c.takeAsIs(t, d, ino); !bytes.Equal(got, want) {
			t.Error("a commit takes another content")
		}
		d.restart()
		if got := d.read(ino); !bytes.Equal(got, want) {
			t.Errorf("known %v: something else is read after a kill", known)
		}
	}
}

// Where a file that is partly here was cut, and does, the tables know safely before it grows.
func TestEndIsToldBeforeItGrows(t *testing.T) {
	for what, grow := range map[string]func(d *device, f *File) error{
		"appended": func(_ *device, f *File) error {
			_, err := f.WriteAt(ctx, pattern(100, 7), 200, false)
			return err
		},
		"allocated": func(_ *device, f *File) error { return f.Allocate(ctx, 200, 100, 0) },
		"set longer": func(d *device, f *File) error {
			size := int64(300)
			_, err := d.SetAttr(ctx, f.Ino(), SetAttr{Size: &size, File: f})
			return err
		},
	} {
		full := &fullJournal{FS: disk.Local}
		d, c := deviceOn(t, full)
		ino := c.gone(t, d, pattern(100_000, 1))
		f, err := d.Open(ctx, ino, os.O_RDWR)
		must(t, err)
		writeAt(t, f, pattern(200, 9), 0)
		cut := func(size int64) error {
			_, err := d.SetAttr(ctx, ino, SetAttr{Size: &size, File: f})
			return err
		}
		if must(t, cut(5000)); !d.st.Durable(d.st.Seq()) {
			t.Error("that it was cut is not on the disk")
		}
		full.full = true
		if err := cut(200); err == nil {
			t.Fatal("the journal is not full")
		}
		if err := grow(d, f); !errors.Is(err, ErrNoSpace) {
			t.Errorf("%s: %v", what, err)
		}
		full.full = false
		d.restart() // killed
		if got := c.takeAsIs(t, d, ino); !bytes.Equal(got, pattern(200, 9)) {
			t.Errorf("%s: a commit takes %d bytes, and not what is left", what, len(got))
		}
		if got := d.read(ino); !bytes.Equal(got, pattern(200, 9)) {
			t.Errorf("%s: %d bytes, and not what is left", what, len(got))
		}
	}
}
