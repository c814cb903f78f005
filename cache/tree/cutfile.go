package tree

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"skep/cache/backing"
	"skep/cache/disk"
	"skep/chunker/dag"
)

// Why a file that the kernel writes alone is not taken: its newest version stays.
var (
	// ErrMoving says that it was written while it was read, more than the reading
	// allows.
	ErrMoving = errors.New("file is being written")
	// ErrGone says that it was deleted since the cut.
	ErrGone = errors.New("file was deleted")
	// ErrUnread says of any file that a part of its content cannot be read, on the
	// local disk or with holders, that a commit needs because the chunk around it
	// changed.
	ErrUnread = errors.New("a part of it cannot be read")
)

// CutFile is the content of a dirty file as of the cut.
type CutFile struct {
	c      *Cut
	ino    Ino
	in     *inode    // nil if it has ended since
	file   disk.File // the backing file as of the cut; nil for inline content
	inline []byte
	passed bool
	// Of a passed file: its number, how it is read, and what it was like before that.
	backing uint64
	how     Reading
	before  unix.Stat_t
	order   uint64 // see inode
	copied  int64  // bytes that its copy takes: see copyAside

	// Record is the inode's record, of a passed file as it is now.
	Record dag.Inode
	// Old is the content in the newest commit that has it.
	Old dag.File
	// Size is the length of the content.
	Size int64
	// Moved says, after Taken, that the file was written while it was read, as far as
	// is known, so that what was read is of no single moment: see Reading.
	Moved bool

	whole        bool
	valid, dirty backing.Ranges
	partial      bool
}

// Format hides keys, and what leads to them, from every formatting verb.
func (*CutFile) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "tree.CutFile(…)") }

// OpenFile opens a dirty file's content. Close it, by Taken if it was read. How
// matters for those alone that the kernel may be writing.
func (c *Cut) OpenFile(ctx context.Context, in Inode, how Reading) (*CutFile, error) {
	ino := Ino(in.Record.ID)
	f := &CutFile{c: c, ino: ino, how: how, Record: in.Record, Size: in.row.size, partial: in.row.has(flagPartial),
		Old: in.row.committed()}
	if in.row.has(flagInline) {
		b, _, err := c.view.Get(key(tableInline, ino))
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
		err = f.openPassed(ctx)
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
		return fmt.Errorf("%w: %w", ErrUnread, err)
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
	ok, err := readRangesOf(f.c.view, tmp)
	if err != nil {
		return fmt.Errorf("inode %d: %w", f.ino, err)
	}
	f.valid, f.dirty, f.whole = tmp.valid, tmp.dirty, tmp.whole || !ok
	f.valid.Add(f.Old.Size, f.Size) // see addOwn
	if f.in == nil && f.partial {   // of one that has ended since, they may lag behind what was in memory
		f.dirty.Union(f.valid)
	} else if f.in == nil {
		f.whole = true
	}
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
// where that data ends; a hole reads as zeros. What is not here may be data. At the
// end of the file, from is Size.
func (f *CutFile) NextData(off int64) (from, to int64) {
	if f.file == nil || off >= f.Size {
		return off, f.Size
	}
	from, to = dataFrom(f.file, off, f.Size)
	// Now that holes which are made from here on do not count: what was set
	// aside before others were.
	if r, ok := f.setAside(off); ok && r.From < from {
		from, to = r.From, r.To
	}
	if f.partial {
		if gone := f.valid.Missing(off, min(from, f.Size)); len(gone) > 0 {
			from, to = gone[0].From, gone[0].To
		}
	}
	return min(from, f.Size), min(to, f.Size)
}

// setAside returns the first range at or after off of which the content as of the
// cut is kept apart.
func (f *CutFile) setAside(off int64) (r backing.Range, ok bool) {
	if f.in == nil {
		return r, false
	}
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	if f.in.frozen == nil {
		return r, false
	}
	kept := f.in.frozen.have.Within(off, f.Size)
	if len(kept) == 0 {
		return r, false
	}
	return kept[0], true
}

// dataFrom finds the first data of a file at or after off, and its end; from is
// size if there is none. Where it cannot be told, all is data.
func dataFrom(file disk.File, off, size int64) (from, to int64) {
	from, err := file.Seek(off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size
	}
	if err != nil {
		return off, size
	}
	if to, err = file.Seek(from, unix.SEEK_HOLE); err != nil {
		to = size
	}
	return from, to
}

// ReadAt fills p with the content at off. What is not on this device is
// fetched from the commit that has it.
func (f *CutFile) ReadAt(ctx context.Context, p []byte, off int64) error {
	if f.inline != nil || f.file == nil {
		clear(p[copy(p, f.inline[min(off, int64(len(f.inline))):]):])
		return nil
	}
	if f.partial {
		if err := f.readOld(ctx, p, off, f.valid.Missing(off, off+int64(len(p)))); err != nil {
			return err
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

// readHere fills p from this device. It holds nobody up who writes the file: what
// is overwritten meanwhile was set aside before.
func (f *CutFile) readHere(p []byte, off int64) error {
	if err := readFull(f.file, p, off); err != nil {
		return fmt.Errorf("%w: %w", ErrUnread, err)
	}
	if f.passed { // why read on, if it counts for nothing?
		_, err := f.lookBack()
		return err
	}
	if f.in == nil {
		return nil
	}
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	if f.in.frozen == nil {
		return nil
	}
	return f.in.frozen.restore(p, off)
}

// readOld fills the ranges of p, which begins at off, from the committed version.
// Each chunk is fetched once.
func (f *CutFile) readOld(ctx context.Context, p []byte, off int64, ranges []backing.Range) error {
	fetched, chunk := int64(-1), []byte(nil)
	for _, r := range ranges {
		for at := r.From; at < r.To; {
			i := at / dag.ChunkSize
			if i != fetched {
				var err error
				if chunk, err = f.oldChunk(ctx, i); err != nil {
					return err
				}
				fetched = i
			}
			end := min(r.To, (i+1)*dag.ChunkSize)
			part, from := p[at-off:end-off], min(at-i*dag.ChunkSize, int64(len(chunk)))
			clear(part[copy(part, chunk[from:]):])
			at = end
		}
	}
	return nil
}

// oldChunk is a chunk of the committed version; behind its end there is nothing.
func (f *CutFile) oldChunk(ctx context.Context, i int64) ([]byte, error) {
	if i >= f.Old.Chunks() {
		return nil, nil
	}
	b, err := f.c.t.content.ReadChunk(ctx, f.Old, i)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", ErrUnread, err)
	}
	return b, err
}

// Passed reports whether the kernel may be writing the file while it is read.
func (f *CutFile) Passed() bool { return f.passed }

// Partial reports whether some of the content is with holders alone.
func (f *CutFile) Partial() bool { return f.partial && !f.valid.Contains(0, f.Size) }

// IsTiny reports whether a commit has the content in the file's record alone: so little
// does not take a block. There is nothing then to fetch it from. So it is none of a file
// that the kernel may be writing, nor of one of which the rows say that a part is not here:
// they may say so of more than is true, and a crash then makes it true.
func (f *CutFile) IsTiny() bool { return f.Size <= dag.MaxInline && !f.passed && !f.partial }

// Taken says that all was read: a file that is written from now on need not be
// kept as it was. For a file that the kernel writes alone it is ErrMoving if that
// was written more meanwhile than the reading allows.
func (f *CutFile) Taken() error {
	if f.passed {
		var err error
		if f.Moved, err = f.lookBack(); err != nil {
			return err
		}
	}
	f.c.mu.Lock()
	f.c.taken.add(f.ino)
	f.c.mu.Unlock()
	if f.in != nil {
		f.in.mu.Lock()
		f.c.t.thaw(f.in)
		if f.passed {
			f.in.taken = nil
			if !f.Moved {
				f.in.taken = &f.before
			}
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
	f.c.t.copies64.Add(-f.copied)
	f.copied = 0
	if f.in != nil {
		f.c.t.release(f.in)
		f.in = nil
	}
}
