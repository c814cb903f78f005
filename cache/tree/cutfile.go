package tree

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"skep/cache/backing"
	"skep/cache/disk"
	"skep/chunker/dag"
)

// ErrMoving says that a file which the kernel writes alone did not come to rest
// while it was read, or is gone: its newest whole version stays.
var ErrMoving = errors.New("file is being written")

// CutFile is the content of a dirty file as of the cut.
type CutFile struct {
	c      *Cut
	ino    Ino
	in     *inode    // nil if it has ended since
	file   disk.File // the backing file as of the cut; nil for inline content
	inline []byte
	passed bool
	before unix.Stat_t // of a passed file

	// Record is the inode's record, of a passed file as it is now.
	Record dag.Inode
	// Old is the content in the newest commit that has it.
	Old dag.File
	// Size is the length of the content.
	Size int64

	whole        bool
	valid, dirty backing.Ranges
	partial      bool
}

// OpenFile opens a dirty file's content. Close it, by Taken if it was read.
func (c *Cut) OpenFile(ctx context.Context, in Inode) (*CutFile, error) {
	ino := Ino(in.Record.ID)
	f := &CutFile{c: c, ino: ino, Record: in.Record, Size: in.row.size, partial: in.row.has(flagPartial),
		Old: dag.File{Root: in.row.content, Size: in.row.contentSize}}
	if in.row.has(flagInline) {
		b, _, err := c.snap.Get(key(tableInline, ino))
		if err != nil {
			return nil, err
		}
		f.inline, f.whole = append(b[:len(b):len(b)], make([]byte, max(0, f.Size-int64(len(b))))...), true
		return f, nil
	}
	live, err := c.t.acquire(ctx, ino)
	if err == nil {
		f.in = live
	} else if !isStale(err) {
		return nil, err
	}
	if c.passed[ino] {
		err = f.openPassed()
	} else {
		err = f.openBacking(in.row)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (f *CutFile) openBacking(r row) error {
	file, err := f.c.t.files.Open(r.backing)
	if err != nil {
		return err
	}
	f.file = file
	if f.in != nil {
		f.in.mu.Lock()
		defer f.in.mu.Unlock()
		if fr := f.in.frozen; fr != nil {
			f.valid, f.dirty, f.whole = fr.valid.Clone(), fr.dirty.Clone(), fr.whole
			return nil
		}
		if f.in.row.backing == r.backing && f.in.row.dirtyEpoch <= f.c.epoch {
			if err := f.c.t.readRanges(f.in); err != nil {
				return err
			}
			f.valid, f.dirty, f.whole = f.in.valid.Clone(), f.in.dirty.Clone(), f.in.whole
			return nil
		}
	}
	return f.readSnapshotRanges()
}

// readSnapshotRanges takes the ranges of a file that nobody has open from the
// tables as of the cut; without a row, all may have changed.
func (f *CutFile) readSnapshotRanges() error {
	tmp := &inode{ino: f.ino}
	ok, err := readRangesOf(f.c.snap, tmp)
	if err != nil {
		return fmt.Errorf("inode %d: %w", f.ino, err)
	}
	f.valid, f.dirty, f.whole = tmp.valid, tmp.dirty, tmp.whole || !ok
	return nil
}

// Changed returns the ranges that may differ from Old, whole chunks of it, in
// order; the last one ends with the file.
func (f *CutFile) Changed() []backing.Range {
	if f.whole || f.Old.Root.IsZero() {
		return []backing.Range{{From: 0, To: f.Size}}
	}
	var s backing.Ranges
	for _, r := range f.dirty.List() {
		from := r.From / dag.ChunkSize * dag.ChunkSize
		to := (r.To + dag.ChunkSize - 1) / dag.ChunkSize * dag.ChunkSize
		s.Add(from, min(to, f.Size))
	}
	if f.Size != f.Old.Size { // the chunk in which the shorter one ends
		from := min(f.Size, f.Old.Size) / dag.ChunkSize * dag.ChunkSize
		s.Add(from, min(from+dag.ChunkSize, f.Size))
		s.Add(min(f.Old.Size, f.Size), f.Size)
	}
	return s.List()
}

// NextData returns the first offset at or after off that may hold data, and
// where that data ends; a hole reads as zeros. At the end of the file, from is
// Size.
func (f *CutFile) NextData(off int64) (from, to int64) {
	if f.file == nil || f.partial {
		return off, f.Size
	}
	from, err := f.file.Seek(off, unix.SEEK_DATA)
	if err != nil {
		if err == unix.ENXIO && !f.mayBeFrozen() {
			return f.Size, f.Size
		}
		return off, f.Size
	}
	if f.mayBeFrozen() {
		return off, f.Size // a hole may have been punched since the cut
	}
	to, err = f.file.Seek(from, unix.SEEK_HOLE)
	if err != nil {
		to = f.Size
	}
	return min(from, f.Size), min(to, f.Size)
}

func (f *CutFile) mayBeFrozen() bool {
	if f.in == nil {
		return false
	}
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	return f.in.frozen != nil
}

// ReadAt fills p with the content at off. What is not on this device is
// fetched from the commit that has it.
func (f *CutFile) ReadAt(ctx context.Context, p []byte, off int64) error {
	if f.inline != nil || f.file == nil {
		clear(p[copy(p, f.inline[min(off, int64(len(f.inline))):]):])
		return nil
	}
	if f.partial {
		for _, r := range f.valid.Missing(off, off+int64(len(p))) {
			if err := f.readOld(ctx, p[r.From-off:r.To-off], r.From); err != nil {
				return err
			}
		}
		for _, r := range f.valid.Within(off, off+int64(len(p))) {
			if err := f.readHere(p[r.From-off:r.To-off], r.From); err != nil {
				return err
			}
		}
		return nil
	}
	return f.readHere(p, off)
}

func (f *CutFile) readHere(p []byte, off int64) error {
	if f.in != nil {
		f.in.mu.Lock()
		defer f.in.mu.Unlock()
		if fr := f.in.frozen; fr != nil && !f.passed {
			return fr.read(p, off)
		}
	}
	return readFull(f.file, p, off)
}

// readOld fills p from the committed version.
func (f *CutFile) readOld(ctx context.Context, p []byte, off int64) error {
	for len(p) > 0 {
		i := off / dag.ChunkSize
		chunk, err := f.c.t.content.ReadChunk(ctx, f.Old, i)
		if err != nil {
			return err
		}
		at := off - i*dag.ChunkSize
		if at >= int64(len(chunk)) {
			clear(p)
			return nil
		}
		n := copy(p, chunk[at:])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// Taken says that all was read: a file that is written from now on need not be
// kept as it was. For a file that the kernel writes alone it tells whether it
// was at rest; if not, ErrMoving.
func (f *CutFile) Taken() error {
	if f.passed {
		after, err := f.file.Stat()
		if err != nil {
			return fmt.Errorf("stat: %w", err)
		}
		if !sameContent(f.before, after) {
			return ErrMoving
		}
	}
	f.c.mu.Lock()
	f.c.taken[f.ino] = true
	f.c.mu.Unlock()
	if f.in != nil {
		f.in.mu.Lock()
		f.in.thaw()
		if f.passed {
			f.in.taken = &f.before
		}
		f.in.mu.Unlock()
	}
	return nil
}

// Close ends the reading.
func (f *CutFile) Close() {
	if f.file != nil {
		_ = f.file.Close()
		f.file = nil
	}
	if f.in != nil {
		f.c.t.release(f.in)
		f.in = nil
	}
}
