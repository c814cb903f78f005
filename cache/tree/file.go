package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"skep/cache/backing"
	"skep/cache/disk"
	"skep/chunker/dag"
)

// File is an open file. It is safe for concurrent use; Release ends it.
type File struct {
	t        *Tree
	in       *inode
	writable bool
	append   bool
	sync     bool
}

// Ino is the inode of the file.
func (f *File) Ino() Ino { return f.in.ino }

// Passthrough returns the file descriptor of the backing file, if the kernel
// is to read and write there by itself. It is the same for all handles of the
// inode, and valid until the last of them is released.
func (f *File) Passthrough() (fd int, ok bool) {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	if !f.in.passthrough || f.in.file == nil {
		return 0, false
	}
	return int(f.in.file.Fd()), true
}

const accessModes = os.O_RDONLY | os.O_WRONLY | os.O_RDWR

func isWritable(flags int) bool { return flags&accessModes != os.O_RDONLY }

// Create makes and opens a regular file. Name must not exist.
func (t *Tree) Create(ctx context.Context, dir Ino, name string, mode uint32, flags int, o Owner) (*File, Attr, error) {
	var bf disk.File
	fill := func(c *change, e *edit) {
		in := e.in
		if !t.mayPass(flags) {
			return
		}
		n, file, err := t.files.Create()
		if err != nil {
			t.log.Warn("writing through the daemon", "err", err)
			return
		}
		bf = file
		in.file, in.passthrough, in.writing = file, true, true
		e.row.flags = e.row.flags&^flagInline | flagBacking
		e.row.backing = n
		in.whole = true
		c.b.Put(c.ownKey(tableBacking, Ino(n)), c.uint64Value(uint64(in.ino)))
		c.b.Put(c.ownKey(tableWriting, in.ino), nil)
	}
	in, a, err := t.make(ctx, dir, name, mode&^modeType|modeReg, 0, o, fill)
	if err != nil {
		if bf != nil {
			_ = bf.Close() // the sweep at the next start deletes it
		}
		return nil, Attr{}, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return t.handle(in, flags), a, nil
}

// mayPass reports whether a file that is created or truncated with these flags
// may be written by the kernel alone.
func (t *Tree) mayPass(flags int) bool {
	return t.opt.Passthrough && isWritable(flags) && flags&(os.O_APPEND|os.O_SYNC|unix.O_DSYNC) == 0
}

// handle makes a handle of an inode of which the caller passes on a reference;
// in.mu is held.
func (t *Tree) handle(in *inode, flags int) *File {
	f := &File{t: t, in: in, writable: isWritable(flags), append: flags&os.O_APPEND != 0,
		sync: flags&(os.O_SYNC|unix.O_DSYNC) != 0}
	in.opens++
	in.used = t.now()
	if f.writable {
		in.writers++
	}
	return f
}

// Tmpfile makes and opens a file without a name. Link may give it one.
func (t *Tree) Tmpfile(ctx context.Context, dir Ino, mode uint32, flags int, o Owner) (*File, Attr, error) {
	d, err := t.directory(ctx, dir)
	if err != nil {
		return nil, Attr{}, err
	}
	defer t.release(d)
	c := t.begin()
	defer c.abandon()
	de := c.edit(d)
	ino := t.newIno(&c.b)
	in := &inode{ino: ino, orphan: true, xattrsRead: true, ranged: true, xattrs: map[string][]byte{}}
	in.row = c.newInode(de, "", mode&^modeType|modeReg, 0, o)
	in.row.nlink, in.row.parent = 0, 0
	if c.b.Len() > 0 { // a run of inode numbers was reserved
		if _, err := t.st.Apply(&c.b); err != nil {
			return nil, Attr{}, noSpace(err)
		}
	}
	t.inodes.add(in)
	in.hold() // for the orphan that it is
	in.mu.Lock()
	defer in.mu.Unlock()
	return t.handle(in, flags), in.attr(), nil
}

// Open opens a regular file; with O_TRUNC it is emptied.
func (t *Tree) Open(ctx context.Context, ino Ino, flags int) (*File, error) {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return nil, err
	}
	f, err := t.open(ctx, in, flags)
	if err != nil {
		t.release(in)
		return nil, err
	}
	return f, nil
}

func (t *Tree) open(ctx context.Context, in *inode, flags int) (*File, error) {
	in.mu.Lock()
	first := in.opens == 0
	isFile, gone := in.row.isFile(), in.stale
	in.mu.Unlock()
	if gone {
		return nil, ErrStale
	}
	if !isFile {
		return nil, ErrInvalid
	}
	trunc := flags&os.O_TRUNC != 0 && isWritable(flags)
	if trunc {
		if err := t.truncate(ctx, in, 0); err != nil {
			return nil, err
		}
	}
	if first && trunc && t.mayPass(flags) {
		if err := t.makePassed(in); err != nil {
			return nil, err
		}
	}
	return t.openLocked(in, flags)
}

// makePassed gives an empty file that is about to be written a backing file
// that the kernel writes alone, unless somebody else opened it meanwhile.
func (t *Tree) makePassed(in *inode) error {
	c := t.begin()
	e := c.edit(in)
	if in.opens > 0 || in.orphan || e.row.size != 0 {
		c.abandon()
		return nil
	}
	if err := c.giveBacking(e, nil); err != nil {
		c.abandon()
		return err
	}
	if err := c.apply(); err != nil {
		return err
	}
	in.mu.Lock()
	in.passthrough = in.opens == 0
	in.mu.Unlock()
	return nil
}

func (t *Tree) openLocked(in *inode, flags int) (*File, error) {
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.row.has(flagBacking) {
		if err := t.openBacking(in); err != nil {
			return nil, err
		}
		if in.opens == 0 && !in.passthrough {
			in.passthrough = t.opt.Passthrough && !isWritable(flags) && !in.row.has(flagPartial)
		}
	} else {
		in.passthrough = false
	}
	if in.passthrough && !in.seenSet {
		if st, err := in.file.Stat(); err == nil {
			in.seen, in.seenSet = Time{st.Mtim.Sec, uint32(st.Mtim.Nsec)}, true
		}
	}
	if in.passthrough && isWritable(flags) {
		// The kernel will write without asking: from now on all may change.
		if err := t.beginWriting(in); err != nil {
			return nil, err
		}
		in.whole = true
	}
	return t.handle(in, flags), nil
}

// openBacking opens the backing file of an inode; in.mu is held.
func (t *Tree) openBacking(in *inode) error {
	if in.file != nil {
		return nil
	}
	f, err := t.files.Open(in.row.backing)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", t.Path(in.ino), ErrCorrupt, err)
	}
	in.file = f
	return nil
}

// Release ends the handle. The last one of an inode brings its row up to date.
func (f *File) Release() {
	t, in := f.t, f.in
	t.gate.RLock()
	in.mu.Lock()
	t.refresh(in)
	in.opens--
	if f.writable {
		in.writers--
	}
	if in.opens == 0 {
		t.settleClosed(in)
	}
	in.mu.Unlock()
	t.gate.RUnlock()
	t.release(in)
}

// settleClosed brings the tables up to date with an inode that nobody has open
// any more; the gate and in.mu are held.
func (t *Tree) settleClosed(in *inode) {
	if in.orphan {
		if in.file != nil {
			_ = in.file.Close()
			in.file = nil
		}
		in.passthrough = false
		return
	}
	c, e := t.lockedChange(in)
	defer c.recycle()
	if err := c.closeFile(e); err != nil {
		t.log.Warn("closing a file", "path", t.Path(in.ino), "err", err)
	}
	if in.frozen == nil && in.file != nil {
		_ = in.file.Close()
		in.file = nil
	}
	in.passthrough, in.seenSet = false, false
}

// closeFile writes what a closed file's rows must say: size and times that were
// only in memory, the ranges, and no more that it is open for writing. A small
// file leaves its backing file for a row.
func (c *change) closeFile(e *edit) error {
	in, t := e.in, c.t
	if !in.writing && !in.soft && !in.gained {
		return nil
	}
	if in.passthrough && in.writing {
		e.row.flags |= flagDirty
		e.row.dirtyEpoch = c.epoch
		e.mark = true
	}
	inlined, err := c.inlineAgain(e)
	if err != nil {
		return err
	}
	if !inlined && in.row.has(flagBacking) {
		t.countLocal(in)
		e.row.local = in.row.local
	}
	if !inlined && in.row.has(flagBacking) && (in.row.has(flagPartial) || !in.whole) {
		c.b.Put(key(tableRanges, in.ino), in.encodeRanges())
		if in.gained {
			t.syncBeforeJournal(in, in.row.backing) // what the ranges call valid must be on the disk first
		}
	}
	c.b.Delete(c.ownKey(tableWriting, in.ino))
	if e.mark {
		c.markInode(e)
	}
	c.putRow(e)
	seq, err := t.st.Apply(&c.b)
	if err != nil {
		return noSpace(err)
	}
	old := in.row
	in.row, in.seq, in.soft, in.writing, in.gained = e.row, seq, false, false, false
	if e.mark {
		in.markedEpoch = c.epoch
	}
	t.recharge(in)
	if inlined {
		t.removeBacking(old.backing, seq)
		if in.file != nil {
			_ = in.file.Close()
			in.file = nil
		}
	}
	t.changed()
	return nil
}

// inlineAgain moves the content of a small, wholly resident file into a row.
func (c *change) inlineAgain(e *edit) (bool, error) {
	in := e.in
	if !e.row.has(flagBacking) || e.row.has(flagPartial) || e.row.size > InlineMax || in.frozen != nil || in.file == nil {
		return false, nil
	}
	b := make([]byte, e.row.size)
	if n, err := in.file.ReadAt(b, 0); n < len(b) {
		return false, fmt.Errorf("%d of %d bytes: %w", n, len(b), err)
	}
	if len(b) > 0 {
		c.b.Put(key(tableInline, in.ino), b)
	}
	c.b.Delete(backingKey(e.row.backing))
	c.b.Delete(key(tableRanges, in.ino))
	e.row.flags = e.row.flags&^flagBacking | flagInline
	e.row.backing, e.row.local = 0, 0
	return true, nil
}

// ReadAt reads up to len(p) bytes at off; fewer, even none, only at the end of
// the file. What is not on this device is fetched.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	in, t := f.in, f.t
	in.mu.Lock()
	defer in.mu.Unlock()
	t.refresh(in)
	t.touchAtime(in)
	n := min(int64(len(p)), in.row.size-off)
	if n <= 0 {
		return 0, nil
	}
	p = p[:n]
	t.readAhead(in, off/dag.ChunkSize)
	err := t.fetch(ctx, in, off, off+n)
	if errors.Is(err, ErrNoSpace) {
		return t.readThrough(ctx, in, p, off) // no room to keep it, but it can be read
	}
	if err != nil {
		return 0, err
	}
	if in.row.has(flagInline) {
		b, err := t.inlineContent(in)
		if err != nil {
			return 0, err
		}
		clear(p[copy(p, b[min(off, int64(len(b))):]):])
		return len(p), nil
	}
	return t.readBacking(in, p, off)
}

// readThrough reads without keeping what has to be fetched; in.mu is held, but
// for the waits.
func (t *Tree) readThrough(ctx context.Context, in *inode, p []byte, off int64) (int, error) {
	f, at := in.committed(), off
	for rest := p; len(rest) > 0; {
		end := min(at+int64(len(rest)), (at/dag.ChunkSize+1)*dag.ChunkSize)
		piece := rest[:end-at]
		if in.row.has(flagBacking) && in.valid.Contains(at, end) {
			if _, err := t.readBacking(in, piece, at); err != nil {
				return 0, err
			}
		} else {
			in.mu.Unlock()
			chunk, err := t.content.ReadChunk(ctx, f, at/dag.ChunkSize)
			in.mu.Lock()
			if err != nil {
				return 0, fmt.Errorf("%s: %w", t.Path(in.ino), err)
			}
			clear(piece[copy(piece, chunk[min(at%dag.ChunkSize, int64(len(chunk))):]):])
			for _, r := range in.valid.Within(at, end) {
				if _, err := t.readBacking(in, piece[r.From-at:r.To-at], r.From); err != nil {
					return 0, err
				}
			}
		}
		rest, at = rest[end-at:], end
	}
	return len(p), nil
}

// readBacking reads what is known to be in the backing file; in.mu is held.
func (t *Tree) readBacking(in *inode, p []byte, off int64) (int, error) {
	if err := t.openBacking(in); err != nil {
		return 0, err
	}
	n, err := in.file.ReadAt(p, off)
	if err == io.EOF {
		clear(p[n:]) // a hole at the end
		n, err = len(p), nil
	}
	if err != nil {
		return n, fmt.Errorf("%s: %w", t.Path(in.ino), err)
	}
	return n, nil
}

// touchAtime moves the access time as relatime does; it stays on this device,
// in memory until the row is written for another reason.
func (t *Tree) touchAtime(in *inode) {
	now := t.now()
	a := in.row.atime
	in.used = now
	if newer(in.row.mtime, a) || newer(in.row.ctime, a) || a == in.row.mtime || now.Sec-a.Sec >= 24*3600 {
		in.row.atime = now
	}
}

// inlineContent returns the content row of an inode; in.mu is held. The caller
// must not change it.
func (t *Tree) inlineContent(in *inode) ([]byte, error) {
	if in.orphan {
		return in.inline, nil
	}
	b, _, err := t.st.Get(key(tableInline, in.ino))
	return b, err
}

// Flush is called at each close of a descriptor of the file.
func (f *File) Flush(context.Context) error {
	in := f.in
	f.t.gate.RLock()
	defer f.t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	f.t.refresh(in)
	return nil
}

// Sync returns when the content of the file, its size and the name it was
// created under survive power loss.
func (f *File) Sync(ctx context.Context, dataOnly bool) error {
	t, in := f.t, f.in
	in.mu.Lock()
	t.refresh(in)
	orphan := in.orphan
	err := t.syncBacking(in)
	seq := in.seq
	in.mu.Unlock()
	if err != nil || orphan {
		return err
	}
	if t.st.Durable(seq) {
		return nil // size and time of a file being written are those of its backing file
	}
	return t.Sync()
}

// syncBacking flushes an inode's backing file and its name; in.mu is held.
func (t *Tree) syncBacking(in *inode) error {
	if !in.row.has(flagBacking) {
		return nil
	}
	if err := t.openBacking(in); err != nil {
		return err
	}
	if err := in.file.Datasync(); err != nil {
		return fmt.Errorf("%s: flush: %w", t.Path(in.ino), noSpace(err))
	}
	if in.named.Load() == in.row.backing {
		return nil
	}
	if err := t.files.SyncName(in.row.backing); err != nil {
		return err
	}
	in.named.Store(in.row.backing)
	return nil
}

// Seek finds data or a hole, as lseek with SEEK_DATA and SEEK_HOLE.
func (f *File) Seek(ctx context.Context, off int64, whence int) (int64, error) {
	in := f.in
	in.mu.Lock()
	defer in.mu.Unlock()
	f.t.refresh(in)
	if off < 0 || off >= in.row.size {
		return 0, ErrNoRange
	}
	if !in.row.has(flagBacking) || in.row.has(flagPartial) {
		if whence == unix.SEEK_HOLE {
			return in.row.size, nil
		}
		return off, nil // what is not here may be data
	}
	if err := f.t.openBacking(in); err != nil {
		return 0, err
	}
	n, err := in.file.Seek(off, whence)
	if err == unix.ENXIO && whence == unix.SEEK_DATA {
		return 0, ErrNoRange
	}
	if err != nil {
		return 0, fmt.Errorf("seek: %w", err)
	}
	return min(n, in.row.size), nil
}

// encodeRanges is the ranges row: valid, then dirty, then whether dirty is
// known at all.
func (in *inode) encodeRanges() []byte {
	b := in.valid.Append(nil)
	b = in.dirty.Append(b)
	if in.whole {
		return append(b, 1)
	}
	return append(b, 0)
}

// readRanges brings the ranges into memory; in.mu is held. Without a row, a
// resident file that is dirty may have changed everywhere.
func (t *Tree) readRanges(in *inode) error {
	if in.ranged || in.orphan {
		in.ranged = true
		return nil
	}
	b, ok, err := t.st.Get(key(tableRanges, in.ino))
	if err != nil {
		return err
	}
	if !ok {
		in.whole = in.row.has(flagDirty)
		in.ranged = true
		return nil
	}
	valid, rest, err := backing.DecodeRanges(b)
	if err != nil {
		return fmt.Errorf("%s: %w", t.Path(in.ino), err)
	}
	dirty, rest, err := backing.DecodeRanges(rest)
	if err != nil || len(rest) != 1 {
		return fmt.Errorf("%s: ranges row: %w", t.Path(in.ino), backing.ErrFormat)
	}
	in.valid, in.dirty, in.whole, in.ranged = valid, dirty, rest[0] == 1, true
	return nil
}
