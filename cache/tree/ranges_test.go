package tree

import (
	"bytes"
	"os"
	"testing"

	"skep/cache/backing"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// addedRows counts the rows of ranges that are beside a ranges row.
func (d *device) addedRows() (n int) {
	must(d.t, d.st.Scan([]byte{tableAdded}, []byte{tableAdded + 1}, func(_, _ []byte) bool { n++; return true }))
	return n
}

// Writing here and there into a file that is mostly elsewhere costs a small row
// a write, whatever was written before, and hardly a flush; and it survives the
// process, even if the backing file does not. So does the rest of the file.
func TestWritesIntoWhatIsElsewhere(t *testing.T) {
	const size, step, writes = 8 << 20, 16 << 10, 2 * addedMax
	d, count := countingDevice(t)
	committed := &committed{files: map[link.Link][]byte{}}
	d.opt.Content = committed
	d.restart()
	want := pattern(size, 1)
	ino := committed.gone(t, d, want)
	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(t, err)
	_, flushed := count.during(func() { writeMany(t, d, f, want, writes, step) })
	if flushed > 2 {
		t.Errorf("%d writes took %d flushes", writes, flushed)
	}
	if n := d.addedRows(); n == 0 || n > addedMax {
		t.Errorf("%d rows beside the ranges", n)
	}
	writeAt(t, f, []byte("newer"), 3)
	copy(want[3:], "newer")
	d.spoil(f.in.row.backing, &f.in.added.ranges)
	d.restart()
	if n := d.addedRows(); n != 0 {
		t.Errorf("%d rows are left after a restart", n)
	}
	if !bytes.Equal(d.read(ino), want) {
		t.Error("the file is not what was written")
	}
}

// spoil takes from a backing file what power loss may take.
func (d *device) spoil(number uint64, ranges *backing.Ranges) {
	d.t.Helper()
	file, err := d.files.Open(number)
	must(d.t, err)
	defer file.Close()
	for _, r := range ranges.List() {
		_, err := file.WriteAt(make([]byte, r.To-r.From), r.From)
		must(d.t, err)
	}
}

func writeMany(t *testing.T, d *device, f *File, want []byte, writes, step int) {
	t.Helper()
	for i := range writes {
		before := d.st.Appended()
		writeAt(t, f, pattern(100, 2), int64(i*step))
		copy(want[i*step:], pattern(100, 2))
		if n := d.st.Appended() - before; i > 0 && i%addedMax != 0 && n > 300 {
			t.Fatalf("write %d took %d bytes of the journal", i, n)
		}
	}
}

// The rows beside the ranges go whenever the ranges do.
func TestAddedRangesGo(t *testing.T) {
	for what, do := range map[string]func(*device, *File) error{
		"close":    func(d *device, f *File) error { return nil },
		"truncate": func(d *device, f *File) error { return d.Tree.truncate(ctx, f.in, 2*dag.ChunkSize) },
		"empty":    func(d *device, f *File) error { return d.Tree.truncate(ctx, f.in, 0) },
		"unlink":   func(d *device, f *File) error { return d.Unlink(ctx, Root, "f") },
		"read": func(d *device, f *File) error {
			_, err := f.ReadAt(ctx, make([]byte, 4*dag.ChunkSize), 0)
			return err
		},
	} {
		d, committed := evictingDevice(t, Options{})
		ino := committed.gone(t, d, pattern(4*dag.ChunkSize, 1))
		f, err := d.Open(ctx, ino, os.O_RDWR)
		must(t, err)
		for i := range int64(5) {
			writeAt(t, f, []byte("x"), i*100_000)
		}
		if d.addedRows() == 0 {
			t.Fatal("no rows beside the ranges")
		}
		must(t, do(d, f))
		f.Release()
		must(t, d.Tree.Sync())
		if n := d.addedRows(); n != 0 {
			t.Errorf("%s: %d rows are left", what, n)
		}
	}
}

// Writes all over a large file that is here are few ranges to remember, whatever
// their number.
func TestRandomWritesAreFewRanges(t *testing.T) {
	const chunks = 16
	d, committed := evictingDevice(t, Options{})
	ino := d.write(Root, "file", pattern(chunks*dag.ChunkSize, 1))
	committed.take(t, d, ino)
	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(t, err)
	defer f.Release()
	for i := range int64(3000) {
		writeAt(t, f, []byte("x"), i*7919*4096%(chunks*dag.ChunkSize))
	}
	if n := len(f.in.dirty.List()); n > chunks || f.in.whole {
		t.Errorf("%d ranges, whole: %v", n, f.in.whole)
	}
}
