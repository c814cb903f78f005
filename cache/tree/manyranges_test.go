package tree

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"skep/chunker/dag"
)

// A file of which a great many small pieces are here refuses to have another one, by
// itself: no other file is held up, and a commit still takes what there is. When the rest
// of a chunk is here, it goes on.
func TestAFileInTooManyPieces(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	ino := c.gone(t, d, pattern(4*dag.ChunkSize, 1))
	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(t, err)
	writeAt(t, f, []byte("newer"), 3)
	const every, each = 20 << 10, 4 << 10
	size := int64(mostRanges * every)
	must(t, d.truncate(ctx, f.in, size))
	f.in.mu.Lock() // as so many writes leave it, with nobody who can be reached
	f.in.row.contentSize, f.in.closing = size, true
	f.in.valid.Clear()
	for i := range int64(mostRanges) {
		f.in.valid.Add(i*every, i*every+each)
	}
	f.in.mu.Unlock()
	if n, err := f.WriteAt(ctx, pattern(each, 2), 2*each, false); n != 0 || !errors.Is(err, ErrNoSpace) {
		t.Errorf("one more piece: %d bytes, %v", n, err)
	}
	if err := f.Allocate(ctx, size/2+2*each, each, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE); !errors.Is(err, ErrNoSpace) {
		t.Errorf("a hole: %v", err)
	}
	writeAt(t, f, pattern(each, 3), 0)    // what is here
	writeAt(t, f, pattern(each, 4), each) // beside it
	writeAt(t, f, pattern(100_000, 5), 4*dag.ChunkSize)
	must(t, f.Sync(ctx, false))
	other := d.write(Root, "other", pattern(dag.ChunkSize, 6))
	cut, err := d.Cut()
	must(t, err)
	_, there, err := cut.Inode(other)
	must(t, err)
	if !there {
		t.Error("the cut lacks another file")
	}
	cut.Close()
	_, err = f.ReadAt(ctx, make([]byte, dag.ChunkSize), 0) // it is fetched
	must(t, err)
	writeAt(t, f, pattern(each, 7), size/2+2*each)
	f.Release()
	cut, err = d.Cut()
	must(t, err)
	cut.Close()
}
