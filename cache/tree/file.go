package tree

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
)

// File is an open file. It is safe for concurrent use; Release ends it.
type File struct {
	t        *Tree
	in       *inode
	readable bool
	writable bool
	sync     bool
	fresh    bool // the file was empty when it was opened
	ofMany   bool // see OneOfMany
	noAtime  bool

	abandoned bool // see Abandon; guarded by in.mu
}

// Format hides keys, and what leads to them, from every formatting verb.
func (*File) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "tree.File(…)") }

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
	var n uint64
	fill := func(c *change, e *edit) {
		in := e.in
		if bf != nil { // of a try for which there was no room
			t.takeBack(n, bf, ErrNoSpace)
			bf = nil
		}
		if !t.mayPass(flags, e.row.mode) {
			return
		}
		var err error
		if n, bf, err = t.files.Create(); err != nil {
			t.log.Warn("writing through the daemon", "err", err)
			return
		}
		in.file, in.passthrough, in.writing = bf, true, true
		e.row.flags = e.row.flags&^flagInline | flagBacking
		e.row.backing = n
		in.whole = true
		c.nameBacking(n, in.ino)
		c.b.Put(c.ownKey(tableWriting, in.ino), nil)
	}
	in, a, err := t.make(ctx, dir, name, mode&^modeType|modeReg, 0, o, fill)
	if err != nil {
		if bf != nil {
			t.takeBack(n, bf, err)
		}
		return nil, Attr{}, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if bf != nil {
		t.changedContent(in)
	}
	f := t.handle(in, flags)
	f.fresh, f.ofMany = true, flags&accessModes == os.O_WRONLY && t.burst.on(t.now())
	return f, a, nil
}

// OneOfMany reports whether the file was made within a burst of small ones, to be
// written only: it is likely to be written by a call or two, and closed, and cannot
// be mapped.
func (f *File) OneOfMany() bool { return f.ofMany }

// mayPass reports whether a file that is created or truncated with these flags
// may be written by the kernel alone. That would not take set-user-id away. A
// program that opens a file for reading and writing, to be made only if it is not
// there, keeps a database or an image in it: several such files belong together
// as of one moment, which a commit finds only if it sees each write.
func (t *Tree) mayPass(flags int, mode uint32) bool {
	if !t.opt.Passthrough || mode&(modeSUID|modeSGID) != 0 || !isWritable(flags) || flags&(os.O_APPEND|os.O_SYNC|unix.O_DSYNC) != 0 {
		return false
	}
	return isWhole(flags) && !t.burst.on(t.now()) && t.room.PassThrough()
}

// isWhole reports whether who creates or truncates a file with these flags writes
// all of it anew.
func isWhole(flags int) bool {
	return flags&accessModes == os.O_WRONLY || isWritable(flags) && flags&(os.O_TRUNC|os.O_EXCL) != 0
}

// onlyAppends reports whether who opens a file with these flags can but add to its end.
func onlyAppends(flags int) bool {
	return flags&accessModes == os.O_WRONLY && flags&os.O_APPEND != 0
}

// handle makes a handle of an inode of which the caller passes on a reference;
// in.mu is held.
func (t *Tree) handle(in *inode, flags int) *File {
	f := &File{t: t, in: in, readable: flags&accessModes != os.O_WRONLY, writable: isWritable(flags),
		sync: flags&(os.O_SYNC|unix.O_DSYNC) != 0, noAtime: flags&unix.O_NOATIME != 0}
	in.opens++
	in.forgotten = false
	in.used = t.now()
	if f.writable {
		in.writers++
		t.inodes.writer(in)
	}
	if f.mayStore() {
		in.storers++
	}
	f.touchPassed()
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
	in := &inode{ino: ino, orphan: true, xattrsRead: true, ranged: true}
	e := edit{in: in}
	if err := c.newInode(&e, de, "", mode&^modeType|modeReg, 0, o); err != nil {
		return nil, Attr{}, err
	}
	in.row, in.xattrs = e.row, e.xattrs
	in.row.nlink, in.row.parent = 0, 0
	if c.b.Len() > 0 { // a run of inode numbers was reserved
		if _, err := c.send(); err != nil {
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
	if err := f.syncPassed(ctx); err != nil {
		f.Release()
		return nil, err
	}
	return f, nil
}

// syncPassed makes a file survive power loss, with its name, that the kernel alone
// is about to write by O_SYNC: it flushes what it writes, and tells nobody.
func (f *File) syncPassed(ctx context.Context) error {
	if _, passed := f.Passthrough(); !passed || !f.sync || !f.writable {
		return nil
	}
	f.in.mu.Lock()
	f.in.unheard = true
	f.in.mu.Unlock()
	return f.Sync(ctx, false)
}

func (t *Tree) open(ctx context.Context, in *inode, flags int) (*File, error) {
	in.mu.Lock()
	first, mode := in.opens == 0, in.row.mode
	isFile, gone := in.row.isFile(), in.stale
	in.mu.Unlock()
	if gone {
		return nil, ErrStale
	}
	if !isFile {
		return nil, ErrInvalid
	}
	trunc := flags&os.O_TRUNC != 0 && isWritable(flags)
	if first && !trunc {
		if err := t.settleDoubt(ctx, in); err != nil {
			return nil, err
		}
	}
	if trunc {
		if err := t.truncate(ctx, in, 0); err != nil {
			return nil, err
		}
	}
	if first && trunc && t.mayPass(flags, mode) {
		if err := t.makePassed(in); err != nil {
			return nil, err
		}
	}
	if isWritable(flags) {
		if err := t.preservePassed(ctx, in); err != nil {
			return nil, err
		}
	}
	f, err := t.openLocked(in, flags)
	if err == nil {
		f.fresh = trunc
	}
	return f, err
}

// preservePassed is preserveAhead of all of a file that the kernel is about to write
// alone, while others read it.
func (t *Tree) preservePassed(ctx context.Context, in *inode) error {
	in.mu.Lock()
	passed, size := in.passthrough, in.row.size
	in.mu.Unlock()
	if !passed {
		return nil
	}
	return t.preserveAhead(ctx, in, 0, size)
}

// makePassed gives an empty file that is about to be written a backing file
// that the kernel writes alone, unless somebody else opened it meanwhile or there is
// no room.
func (t *Tree) makePassed(in *inode) error {
	c := t.begin()
	e := c.edit(in)
	if in.opens > 0 || in.orphan || e.row.size != 0 || e.row.has(flagBacking) || t.isTinyInCommit(&e.row) {
		c.abandon()
		return nil
	}
	if err := c.giveBacking(e, nil); err != nil {
		c.abandon()
		t.log.Warn("writing through the daemon", "err", err)
		return nil
	}
	n := e.row.backing
	in.passthrough = true // before anybody else can open it
	err := c.apply()
	if err == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.passthrough = in.passthrough && in.opens > 0
	t.takeBackOf(in, n, err)
	return err
}

// isTinyInCommit reports whether the committed content of a file is, or is about
// to be, in its record alone: should the file not come to rest while it is written,
// a commit could not say it again under another name.
func (t *Tree) isTinyInCommit(r *row) bool {
	return r.content.IsZero() && (r.has(flagCommitted) && r.contentSize > 0 || t.currentCut() != nil)
}

func (t *Tree) openLocked(in *inode, flags int) (*File, error) {
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := t.takeLeft(in); err != nil {
		return nil, err
	}
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
		// What a commit is still to read as it was nobody sets aside piece by piece.
		if err := t.preserve(in, 0, in.row.size); err != nil {
			return nil, err
		}
		in.whole = true
		in.noteHow(flags)
		t.changedContent(in)
	}
	return t.handle(in, flags), nil
}

// noteHow takes note of how a file is about to be written, alone, that others have open;
// in.mu is held. Who writes all of it is the first to write; who opens it later, too, only
// goes on with that.
func (in *inode) noteHow(flags int) {
	first, anew := in.writers == 0, flags&os.O_TRUNC != 0
	if (first || in.grows) && !anew && !onlyAppends(flags) {
		in.joined = true
	}
	in.grows = (first || in.grows) && !anew && onlyAppends(flags)
}

// openBacking opens the backing file of an inode; in.mu is held.
func (t *Tree) openBacking(in *inode) error {
	if in.file != nil {
		return nil
	}
	f, err := t.files.Open(in.row.backing)
	if absent(err) && t.isCommitted(in) {
		return t.renewBacking(in)
	}
	if absent(err) {
		return fmt.Errorf("%s: %w: %w", t.Path(in.ino), ErrCorrupt, err)
	}
	if err != nil { // it says nothing against the file: there may be too many open
		return fmt.Errorf("%s: %w", t.Path(in.ino), err)
	}
	in.file = f
	return nil
}

// isCommitted reports whether a commit has all that is in a file; in.mu is held.
func (t *Tree) isCommitted(in *inode) bool {
	return !in.orphan && !in.row.has(flagDirty) && !in.row.content.IsZero()
}

// renewBacking makes an empty backing file in place of one that is gone: what
// was in it is fetched again. Power loss can do that to one that was made to
// fetch into; so can somebody who deletes what is only a cache. in.mu is held.
func (t *Tree) renewBacking(in *inode) error {
	f, err := t.files.Renew(in.row.backing)
	if err != nil {
		return noSpace(err)
	}
	c, e := t.lockedChange(in)
	r := e.local()
	r.flags |= flagPartial
	r.local = 0
	in.valid.Clear()
	in.dirty.Clear()
	in.whole, in.ranged = false, true
	c.putRanges(in)
	if err = f.Truncate(in.row.size); err == nil {
		err = c.applyLocked()
	}
	if err != nil {
		_ = f.Close()
		return noSpace(err)
	}
	in.file, in.named = f, false
	in.unflush()
	return nil
}
