package tree

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"skep/chunker/dag"
)

// notePassed marks a file that the kernel writes alone, if it changed since the
// last commit that took it. Whoever reads it in this commit, be it because an
// earlier one that took it failed, has to look whether it moves.
//
// One that is written in place, as a database is, belongs with other files as they are
// at the cut. It is passed through only because somebody read it when it was opened to
// be written, and counts only if it does not change from the cut on.
func (c *Cut) notePassed(in *inode) {
	if !in.passthrough || in.writers == 0 || in.orphan || in.file == nil {
		return
	}
	st, err := in.file.Stat()
	if err != nil {
		return
	}
	in.noteBacking(st, c.t)
	c.passed[in.ino] = true
	if in.joined {
		c.joined[in.ino] = st
	}
	if in.taken != nil && sameContent(st, *in.taken) {
		return
	}
	in.row.flags |= flagDirty
	in.row.dirtyEpoch = c.epoch
	in.soft, in.whole = true, true
}

// IsPassed reports whether the kernel was writing a file alone at the cut.
func (c *Cut) IsPassed(ino Ino) bool { return c.passed[ino] }

func sameContent(a, b unix.Stat_t) bool {
	return a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim
}

// openPassed prepares to read a file that the kernel may be writing: it is at rest
// if nothing moved from before the flush on, which write-protects mapped pages, so
// that a later store shows in the change time.
func (f *CutFile) openPassed(ctx context.Context) error {
	if f.in == nil {
		return ErrGone
	}
	if f.how == Copied {
		if f.c.t.isSlow(f.in) {
			return ErrMoving
		}
		defer f.in.delayFlushes()()
	}
	f.in.mu.Lock()
	err := f.openMoving()
	f.in.mu.Unlock()
	if err != nil || f.file == nil {
		return err
	}
	// The times first: a store into a mapped page that was dirty already shows in
	// them only if the page was written back before.
	if f.before, err = f.file.Stat(); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if f.how == Whole && !f.c.t.atRest(f.before) {
		return ErrMoving
	}
	if st, joined := f.c.joined[f.ino]; joined && (f.how != Whole || !sameContent(st, f.before)) {
		return ErrMoving
	}
	// Nobody is held up by the flush, which may take long.
	var flushed error
	if f.how != Copied {
		flushed = f.file.Sync()
	} else if err := f.copyAside(ctx); err != nil {
		return err
	}
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	if f.in.orphan {
		return ErrGone
	}
	if !f.in.row.has(flagBacking) || f.in.row.backing != f.backing {
		return ErrMoving
	}
	if flushed != nil { // the kernel may tell nobody else
		return fmt.Errorf("%w: flush before reading: %w", ErrUnread, f.c.t.lost(f.in, flushed))
	}
	if f.in.passthrough && f.in.writers > 0 { // else the row has what is newer
		f.in.noteBacking(f.before, f.c.t)
	}
	r := &f.in.row
	f.Size, f.whole, f.passed, f.partial = f.before.Size, true, true, r.has(flagPartial)
	f.valid = f.in.valid.Clone()
	f.takeAttributes(r)
	f.Record.Size = f.Size
	return nil
}

// openMoving opens the backing file of a file as it is now, or takes its content
// if that is inline; in.mu is held.
func (f *CutFile) openMoving() error {
	r := &f.in.row
	switch {
	case f.in.orphan:
		return ErrGone
	case r.has(flagInline):
		return f.takeClosed()
	case !r.has(flagBacking):
		return ErrMoving
	}
	f.backing, f.order = r.backing, f.in.order
	file, err := f.c.t.files.Open(r.backing)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnread, err)
	}
	f.file = file
	return nil
}

// restTime is how long nothing must have been written to a file where its times
// do not tell two writes apart that follow closely: two ticks of the slowest
// kernel's clock.
const restTime = 20 * time.Millisecond

// atRest reports whether a change of a file from now on will show in its times.
func (t *Tree) atRest(st unix.Stat_t) bool {
	t.fineOnce.Do(func() { t.fine = t.fineTimes() })
	if t.fine {
		return true
	}
	changed := time.Unix(st.Ctim.Sec, st.Ctim.Nsec)
	return time.Since(changed) > restTime
}

// fineTimes reports whether the local filesystem gives each change that follows a
// look at the times another one, as Linux does from 6.13 on.
func (t *Tree) fineTimes() bool {
	f, err := t.files.Scratch()
	if err != nil {
		return false
	}
	defer f.Close()
	var last unix.Timespec
	for range 4 {
		if _, err := f.WriteAt([]byte{0}, 0); err != nil {
			return false
		}
		st, err := f.Stat()
		if err != nil || st.Ctim == last {
			return false
		}
		last = st.Ctim
	}
	return true
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
