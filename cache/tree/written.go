package tree

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel does not tell a FUSE server of syncfs, which on a local filesystem
// writes everything to the disk. So what is written is flushed soon after, whether
// somebody asks or not.

const (
	// flushEvery is how often that is done.
	flushEvery = time.Second / 2
	// writtenMax is how many files are flushed one by one, beside those that the
	// kernel writes alone. Of more, at once, the whole disk is: that is quicker, and
	// they are not kept in memory.
	writtenMax = 1024
)

// written are the inodes whose backing files changed since they were flushed last,
// each with a reference.
type written struct {
	flushing sync.Mutex // held by who flushes them
	mu       sync.Mutex // guards all below
	all      map[*inode]struct{}
	more     bool // files that are not in all changed, too
	late     bool // … before the last flush of the disk, which may have missed their bytes
}

// take returns all, and whether there are more, and empties the set. More are told of
// twice: a file counts as changed a moment before it is written.
func (w *written) take() (all map[*inode]struct{}, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all, more = w.all, w.more || w.late
	w.all, w.late, w.more = nil, w.more, false
	return all, more
}

// add adds an inode that is not in the set, or takes note that there are more; in.mu
// is held, and the caller has a reference. One that the kernel writes alone has to be
// looked at again and again, and is in memory as long as that: it is always added.
func (w *written) add(in *inode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.all) >= writtenMax && !(in.passthrough && in.writers > 0) {
		w.more = true
		return
	}
	if w.all == nil {
		w.all = map[*inode]struct{}{}
	}
	in.hold()
	in.listed = true
	w.all[in] = struct{}{}
}

// again takes note that more files than are in the set have to be flushed still.
func (w *written) again() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.more = true
}

// remove takes an inode out and reports whether it was there: its reference is
// the caller's then.
func (w *written) remove(in *inode) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, there := w.all[in]
	delete(w.all, in)
	return there
}

// changedContent takes note that the backing file was written, and has it flushed
// soon; in.mu is held.
func (t *Tree) changedContent(in *inode) {
	in.unflush()
	t.flushLater(in)
}

// flushLater has the backing file flushed soon; in.mu is held.
func (t *Tree) flushLater(in *inode) {
	if !in.listed {
		t.written.add(in)
	}
}

// flushWritten flushes backing files soon after they were written, until ctx
// ends. It rests for as long as it worked at least, so that the disk has time for
// others.
func (t *Tree) flushWritten(ctx context.Context) {
	for rest := flushEvery; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(rest):
		}
		begin := time.Now()
		if err := t.flushAll(); err != nil {
			t.log.Warn("flushing what was written", "err", err)
		}
		rest = max(flushEvery, time.Since(begin))
	}
}

// flushAll flushes the backing files that were written before the call.
func (t *Tree) flushAll() error {
	t.written.flushing.Lock()
	defer t.written.flushing.Unlock()
	var errs []error
	all, more := t.written.take()
	if more {
		if err := t.syncDisk(); err != nil {
			t.written.again()
			errs = append(errs, err)
		}
	}
	for in := range all {
		errs = append(errs, t.flushChanged(in))
		t.release(in)
	}
	return errors.Join(errs...)
}

// syncDisk flushes the whole disk. That it failed the kernel tells once, and not for
// which file: from then on each is asked.
func (t *Tree) syncDisk() error {
	err := t.files.SyncAll()
	if err != nil {
		t.diskFailed.Store(true)
	}
	return err
}

// SyncAll returns when everything that was done before the call survives power
// loss: names, and the contents of files that have one. What an earlier flush lost
// does not.
func (t *Tree) SyncAll() error {
	// The journal first: of a file that outgrows it meanwhile it has all, and the backing
	// file is flushed before it takes the place of that.
	first := t.Sync()
	err := t.flushAll()
	if err == nil {
		err = t.lostContent()
	}
	return errors.Join(first, err, t.Sync())
}

// lostContent tells of a file of which a flush that failed lost content.
func (t *Tree) lostContent() (err error) {
	t.inodes.any(func(in *inode) bool {
		if !in.orphan {
			err = in.flushErr
		}
		return err != nil
	})
	return err
}

// flushChanged flushes what was written to a file. That it failed is told, too,
// to whoever asks for a flush next. One that the kernel writes alone has to be
// looked at again, and so has one of which nothing is lost by the failure.
func (t *Tree) flushChanged(in *inode) (err error) {
	cut := t.settleUntold(in)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.listed = false
	if in.orphan || in.stale || in.flushErr != nil {
		return cut
	}
	passed := in.passthrough && in.writers > 0
	if !in.isFlushed() && (!passed || t.movedSince(in)) {
		err = t.flushUnlocked(in)
		if passed {
			t.changed()
		}
	}
	if err = errors.Join(cut, err); err != nil && in.flushErr == nil || !in.isFlushed() && in.passthrough && in.writers > 0 {
		t.flushLater(in)
	}
	return err
}

// movedSince reports whether a file that the kernel writes alone may have changed
// since it was asked last: its times did, or are so young that another change need
// not show. Stores through mappings show, as the flush protected the pages.
func (t *Tree) movedSince(in *inode) bool {
	st, err := in.file.Stat()
	if err != nil {
		return true
	}
	moved := st.Ctim != in.flushedAt
	in.flushedAt = unix.Timespec{}
	if t.atRest(st) {
		in.flushedAt = st.Ctim
	}
	return moved
}
