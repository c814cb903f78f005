package tree

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"skep/cache/backing"
	"skep/cache/state"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// Cut is the tree as of one instant, for a commit to take. There is one at a
// time. What the commit has taken it tells by Settle; Close ends the cut.
type Cut struct {
	t     *Tree
	epoch uint64 // marks of this epoch and before are the commit's
	snap  *state.Snapshot

	mu     sync.Mutex // guards all below
	taken  map[Ino]bool
	frozen []*inode     // each with a reference
	passed map[Ino]bool // files that the kernel was writing alone at the cut
}

// ErrBusy says that a cut is under way already.
var ErrBusy = errors.New("a commit is under way")

func (t *Tree) currentCut() *Cut {
	t.cutMu.Lock()
	defer t.cutMu.Unlock()
	return t.cutting
}

// Cut fixes the tree as it is now.
func (t *Tree) Cut() (*Cut, error) {
	c := &Cut{t: t, taken: map[Ino]bool{}, passed: map[Ino]bool{}}
	t.gate.Lock()
	t.cutMu.Lock()
	if t.cutting != nil {
		t.cutMu.Unlock()
		t.gate.Unlock()
		return nil, ErrBusy
	}
	t.cutting = c
	t.cutMu.Unlock()
	c.epoch = t.epoch.Load()
	err := c.flushSoft()
	var sc *state.Cut
	if err == nil {
		t.epoch.Store(c.epoch + 1)
		sc = t.st.BeginCut()
	}
	t.gate.Unlock()
	if err == nil {
		c.snap, err = sc.Snapshot()
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("cut: %w", err)
	}
	return c, nil
}

// flushSoft writes what only memory knows into the tables, with the new epoch;
// the gate is held exclusively.
func (c *Cut) flushSoft() error {
	t := c.t
	var b state.Batch
	b.Put(singleKey("epoch"), uint64Value(c.epoch+1))
	b.Put(singleKey("usage"), append(uint64Value(uint64(t.files64.Load())), uint64Value(uint64(t.bytes64.Load()))...))
	t.cacheMu.Lock()
	all := make([]*inode, 0, len(t.inodes))
	for _, in := range t.inodes {
		in.refs++
		all = append(all, in)
	}
	t.cacheMu.Unlock()
	var soft []*inode
	for _, in := range all {
		in.mu.Lock()
		c.notePassed(in, &b)
		if in.soft && !in.orphan {
			b.Put(key(tableInode, in.ino), in.row.encode())
			soft = append(soft, in)
		}
		in.mu.Unlock()
	}
	seq, err := t.st.Apply(&b)
	for _, in := range soft {
		if err == nil {
			in.mu.Lock()
			in.soft, in.seq = false, max(in.seq, seq)
			in.mu.Unlock()
		}
	}
	for _, in := range all {
		t.release(in)
	}
	return err
}

// notePassed marks a file that the kernel writes alone, if it changed since the
// last commit that took it.
func (c *Cut) notePassed(in *inode, b *state.Batch) {
	if !in.passthrough || in.writers == 0 || in.orphan || in.file == nil {
		return
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(in.file.Fd()), &st); err != nil {
		return
	}
	in.noteBacking(st, c.t)
	if in.taken != nil && sameContent(st, *in.taken) {
		return
	}
	c.passed[in.ino] = true
	in.row.flags |= flagDirty
	in.row.dirtyEpoch = c.epoch
	in.soft, in.whole, in.markedEpoch = true, true, c.epoch
	dir, name := in.row.parent, in.row.name
	if in.row.has(flagMulti) {
		dir, name = Links, linkName(in.ino)
	}
	b.Put(markKey(dir, name), uint64Value(c.epoch))
}

func sameContent(a, b unix.Stat_t) bool {
	return a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim
}

// Epoch is the number of the epoch that the cut ended.
func (c *Cut) Epoch() uint64 { return c.epoch }

// Seq is the number of the last batch that the cut contains.
func (c *Cut) Seq() uint64 { return c.snap.Seq }

// Reader gives the tables as of the cut, for those who keep tables of their
// own beside the tree's.
func (c *Cut) Reader() state.Reader { return c.snap }

// froze notes that an inode's content was set aside.
func (c *Cut) froze(in *inode) {
	c.t.cacheMu.Lock()
	in.refs++
	c.t.cacheMu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = append(c.frozen, in)
}

func (c *Cut) hasTaken(ino Ino) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taken[ino]
}

// Mark is an entry that changed.
type Mark struct {
	Dir  Ino
	Name string
}

// Marks calls fn for the entries that changed up to the cut, directory by
// directory, names in order.
func (c *Cut) Marks(fn func(Mark) error) error {
	var ferr error
	err := c.snap.Scan([]byte{tableMark}, []byte{tableMark + 1}, func(k, v []byte) bool {
		if valueUint64(v) > c.epoch {
			return true
		}
		m, err := parseMark(k)
		if err == nil {
			err = fn(m)
		}
		ferr = err
		return err == nil
	})
	return errors.Join(err, ferr)
}

// MarksOf calls fn for the marked names of one directory, in order.
func (c *Cut) MarksOf(dir Ino, fn func(name string)) error {
	return c.snap.Scan(key(tableMark, dir), key(tableMark, dir+1), func(k, v []byte) bool {
		if valueUint64(v) <= c.epoch {
			fn(string(k[9:]))
		}
		return true
	})
}

func parseMark(k []byte) (Mark, error) {
	if len(k) < 9 {
		return Mark{}, errors.New("malformed mark row")
	}
	return Mark{Ino(binary.BigEndian.Uint64(k[1:9])), string(k[9:])}, nil
}

// Inode is what a commit needs of an inode as of the cut.
type Inode struct {
	// Record is the inode's record; of a dirty file Size and Content are
	// still to be filled in, of a directory Content is that of the newest
	// commit.
	Record dag.Inode
	Parent Ino
	Name   string // in Parent
	// Multi says that the record belongs into the table of linked inodes.
	Multi bool
	// Dirty says that a file's content changed since Record.Content.
	Dirty bool
	row   row
}

// CommittedSize is the size of the file in the newest commit that has it.
func (in *Inode) CommittedSize() int64 { return in.row.contentSize }

// Entry returns the inode that a name led to, if there was one.
func (c *Cut) Entry(dir Ino, name string) (Ino, bool, error) {
	b, ok, err := c.snap.Get(entryKey(dir, name))
	if !ok || err != nil {
		return 0, false, err
	}
	e, err := decodeEntry(b)
	return e.ino, err == nil, err
}

// Inode returns an inode; ok is false if there was none.
func (c *Cut) Inode(ino Ino) (Inode, bool, error) {
	b, ok, err := c.snap.Get(key(tableInode, ino))
	if !ok || err != nil {
		return Inode{}, false, err
	}
	r, err := decodeRow(b)
	if err != nil {
		return Inode{}, false, fmt.Errorf("inode %d: %w", ino, err)
	}
	out := Inode{Parent: r.parent, Name: r.name, Multi: r.has(flagMulti), Dirty: r.isFile() && r.has(flagDirty), row: r}
	out.Record = dag.Inode{ID: uint64(ino), Mode: r.mode, UID: r.uid, GID: r.gid, Nlink: r.nlink, Size: r.size,
		Mtime: dag.Time(r.mtime), Ctime: dag.Time(r.ctime), Btime: dag.Time(r.btime), Rdev: uint64(r.rdev), Content: r.content}
	if err := c.fillSmall(ino, &out); err != nil {
		return Inode{}, false, fmt.Errorf("inode %d: %w", ino, err)
	}
	return out, true, nil
}

// fillSmall adds what lies in rows of its own: the target of a symbolic link,
// tiny content, attributes.
func (c *Cut) fillSmall(ino Ino, in *Inode) error {
	r := &in.row
	if r.mode&modeType == modeLnk || r.has(flagInline) && r.content.IsZero() && r.size <= dag.MaxInline && r.size > 0 {
		b, _, err := c.snap.Get(key(tableInline, ino))
		if err != nil {
			return err
		}
		in.Record.Inline = b
	}
	if r.isDir() {
		in.Record.Size = 0
	}
	b, ok, err := c.snap.Get(key(tableXattrs, ino))
	if !ok || err != nil {
		return err
	}
	in.Record.Xattrs, err = decodeXattrs(b)
	return err
}

// ErrMoving says that a file which the kernel writes alone did not come to rest
// while it was read, or is gone: its newest whole version stays.
var ErrMoving = errors.New("file is being written")

// CutFile is the content of a dirty file as of the cut.
type CutFile struct {
	c      *Cut
	ino    Ino
	in     *inode   // nil if it has ended since
	file   *os.File // the backing file as of the cut; nil for inline content
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

// openPassed prepares to read a file that the kernel may be writing: what is
// read counts if nothing moved meanwhile. The flush write-protects mapped
// pages, so that a later store shows in the change time.
func (f *CutFile) openPassed() error {
	if f.in == nil {
		return ErrMoving
	}
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	if f.in.orphan {
		return ErrMoving
	}
	if f.in.row.has(flagInline) {
		return f.takeClosed()
	}
	if !f.in.row.has(flagBacking) {
		return ErrMoving
	}
	file, err := f.c.t.files.Open(f.in.row.backing)
	if err != nil {
		return err
	}
	f.file = file
	if err := file.Sync(); err != nil {
		return fmt.Errorf("flush before reading: %w", err)
	}
	if err := unix.Fstat(int(file.Fd()), &f.before); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	f.in.noteBacking(f.before, f.c.t)
	r := &f.in.row
	f.Size, f.whole, f.passed, f.partial = f.before.Size, true, true, r.has(flagPartial)
	f.valid = f.in.valid.Clone()
	f.takeAttributes(r)
	return nil
}

// takeClosed takes the content of a small file that was closed since the cut:
// it is at rest, and inline; in.mu is held.
func (f *CutFile) takeClosed() error {
	r := &f.in.row
	b, err := f.c.t.inlineContent(f.in)
	if err != nil {
		return err
	}
	f.Size, f.whole, f.partial = r.size, true, false
	f.inline = append(append([]byte(nil), b...), make([]byte, max(0, r.size-int64(len(b))))...)
	f.takeAttributes(r)
	return nil
}

// takeAttributes makes the record that of the inode as it is now.
func (f *CutFile) takeAttributes(r *row) {
	f.Record.Size, f.Record.Mode, f.Record.UID, f.Record.GID = r.size, r.mode, r.uid, r.gid
	f.Record.Mtime, f.Record.Ctime = dag.Time(r.mtime), dag.Time(r.ctime)
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
	b, ok, err := f.c.snap.Get(key(tableRanges, f.ino))
	if err != nil {
		return err
	}
	if !ok {
		f.whole = true
		return nil
	}
	var rest []byte
	if tmp.valid, rest, err = backing.DecodeRanges(b); err == nil {
		tmp.dirty, rest, err = backing.DecodeRanges(rest)
	}
	if err != nil || len(rest) != 1 {
		return fmt.Errorf("inode %d: ranges row: %w", f.ino, backing.ErrFormat)
	}
	f.valid, f.dirty, f.whole = tmp.valid, tmp.dirty, rest[0] == 1
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
	from, err := unix.Seek(int(f.file.Fd()), off, unix.SEEK_DATA)
	if err != nil {
		if err == unix.ENXIO && !f.mayBeFrozen() {
			return f.Size, f.Size
		}
		return off, f.Size
	}
	if f.mayBeFrozen() {
		return off, f.Size // a hole may have been punched since the cut
	}
	to, err = unix.Seek(int(f.file.Fd()), from, unix.SEEK_HOLE)
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
		var after unix.Stat_t
		if err := unix.Fstat(int(f.file.Fd()), &after); err != nil {
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

// Settled is an inode whose content a commit has taken.
type Settled struct {
	Ino     Ino
	Content link.Link // root of the file or directory; zero for inline content
	Size    int64
}

// Settle makes the commit's content the committed content of these inodes:
// what did not change since the cut is clean. It is called when the commit is
// published, for some inodes at a time.
func (c *Cut) Settle(ctx context.Context, done []Settled) error {
	for _, s := range done {
		if err := c.settle(ctx, s); err != nil && !isStale(err) {
			return err
		}
	}
	return nil
}

func (c *Cut) settle(ctx context.Context, s Settled) error {
	t := c.t
	in, err := t.acquire(ctx, s.Ino)
	if err != nil {
		return err
	}
	defer t.release(in)
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.orphan {
		in.thaw()
		return nil
	}
	ch, e := t.lockedChange(in)
	r := e.local()
	r.content, r.contentSize = s.Content, s.Size
	clean := r.isFile() && r.dirtyEpoch <= c.epoch && !(in.passthrough && in.writers > 0)
	if clean {
		r.flags &^= flagDirty
		if r.has(flagBacking) && !r.has(flagPartial) {
			ch.b.Delete(key(tableRanges, in.ino))
		}
	}
	if err := ch.applyLocked(); err != nil {
		return err
	}
	if clean {
		in.dirty.Clear()
		in.whole, in.ranged = false, true
	}
	in.thaw()
	return nil
}

// ClearMarks removes the marks that the commit has taken, except of entries in
// keep, and those that a later epoch made again.
func (c *Cut) ClearMarks(keep map[Mark]bool) error {
	const batch = 500
	start := []byte{tableMark}
	for start != nil {
		var err error
		if start, err = c.clearSome(start, batch, keep); err != nil {
			return err
		}
	}
	return nil
}

// clearSome looks at up to n marks from start on; it returns where to go on.
func (c *Cut) clearSome(start []byte, n int, keep map[Mark]bool) (next []byte, err error) {
	c.t.gate.Lock() // no mark may be made between looking and deleting
	defer c.t.gate.Unlock()
	var b state.Batch
	b.Freeing()
	err = c.t.st.Scan(start, []byte{tableMark + 1}, func(k, v []byte) bool {
		if m, perr := parseMark(k); perr == nil && valueUint64(v) <= c.epoch && !keep[m] {
			b.Delete(k)
		}
		n--
		next = append(append([]byte(nil), k...), 0)
		return n > 0
	})
	if n > 0 {
		next = nil
	}
	if err != nil || b.Len() == 0 {
		return next, err
	}
	_, err = c.t.st.Apply(&b)
	return next, err
}

// Close ends the cut: the view is released, and what was set aside for it.
func (c *Cut) Close() {
	if c.snap != nil {
		c.snap.Release()
		c.snap = nil
	}
	c.t.cutMu.Lock()
	if c.t.cutting == c {
		c.t.cutting = nil
	}
	c.t.cutMu.Unlock()
	c.mu.Lock()
	frozen := c.frozen
	c.frozen = nil
	c.mu.Unlock()
	for _, in := range frozen {
		in.mu.Lock()
		c.unfreeze(in)
		in.mu.Unlock()
		c.t.release(in)
	}
}

// unfreeze gives up frozen content that the commit did not take: what changed
// before the cut counts as changed since; in.mu is held.
func (c *Cut) unfreeze(in *inode) {
	fr := in.frozen
	if fr == nil {
		return
	}
	if fr.file == in.file {
		in.dirty.Union(fr.dirty)
		in.whole = in.whole || fr.whole
	} else {
		in.whole = true
	}
	in.thaw()
}
