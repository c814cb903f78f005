package tree

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
)

// unflush takes note that the backing file was written; in.mu is held.
func (in *inode) unflush() {
	in.flushed = false
	in.unflushed++
}

// Sync returns when the content of the file, its size and the name it was
// created under survive power loss. Nobody who reads or writes the file waits
// for it.
func (f *File) Sync(ctx context.Context, dataOnly bool) error {
	t, in := f.t, f.in
	if err := t.settleUntold(in); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	t.ordered(ctx, in)
	t.refresh(in)
	if !in.isFlushed() || !t.st.Durable(t.changedIn(in)) {
		waits(ctx)
	}
	for {
		if err := t.flushUnlocked(in); err != nil {
			return err
		}
		small := !in.row.has(flagBacking)
		seq := t.changedIn(in) // size and times of a file being written are those of its backing file
		in.mu.Unlock()
		err := t.syncTo(seq)
		in.mu.Lock()
		if err != nil || !small || !in.row.has(flagBacking) {
			return err
		}
		// It outgrew the journal meanwhile, and nobody knew yet that what it had
		// there was to be safe.
	}
}

// changedIn is the batch up to which all that was done to an inode is in the
// tables; in.mu is held. Of one that has not changed since it came into memory
// nobody knows when it did before.
func (t *Tree) changedIn(in *inode) uint64 {
	if in.seq == 0 {
		return t.st.Seq()
	}
	return in.seq
}

// isFlushed reports whether content and name of the backing file, if there is
// one, survive power loss; in.mu is held.
func (in *inode) isFlushed() bool {
	return !in.row.has(flagBacking) || in.flushed && in.named
}

// waits tells whoever made the context of a request that the request is about
// to wait. Asking for Done is how one says so.
func waits(ctx context.Context) { _ = ctx.Done() }

// flush is one flush of an inode's backing file that goes on without in.mu. The kernel
// tells of content that it could not write once for each open file: so there is one at
// a time, and all who wait hear what became of it.
type flush struct {
	file   disk.File
	number uint64 // of the flushes of the inode
	state  uint64 // of what was written, when it began
	done   chan struct{}
	err    error // to be read when it is done
}

// flushUnlocked is syncBacking for an inode that the caller has a reference of; it
// lets go of in.mu while it flushes. What began after the call flushes for it, too.
func (t *Tree) flushUnlocked(in *inode) error {
	defer t.closeBacking(in)
	begun := in.flushes
	for {
		if in.isFlushed() {
			return nil
		}
		if in.flushErr != nil {
			return in.flushErr
		}
		f := in.flush
		if f == nil {
			var err error
			if f, err = t.beginFlush(in); err != nil {
				return err
			}
		} else {
			in.mu.Unlock()
			<-f.done
			in.mu.Lock()
		}
		isIts := in.file == f.file // and not of content that it had before
		if err := t.endFlush(in, f); err != nil || isIts && f.number > begun {
			return err
		}
	}
}

// beginFlush flushes an inode's backing file and its name, without in.mu, and returns
// the flush when it is over.
func (t *Tree) beginFlush(in *inode) (*flush, error) {
	if err := t.openBacking(in); err != nil {
		return nil, err
	}
	in.flushes++
	f := &flush{file: in.file, number: in.flushes, state: in.unflushed, done: make(chan struct{})}
	in.flush = f
	backed, named := in.row.backing, in.named
	in.mu.Unlock()
	defer in.mu.Lock()
	if f.err = f.file.Datasync(); f.err == nil && !named {
		f.err = t.files.SyncName(backed)
	}
	close(f.done)
	return f, nil
}

// endFlush takes note of what became of a flush that is over, unless somebody has, and
// returns the error of those of the inode's content; in.mu is held.
func (t *Tree) endFlush(in *inode, f *flush) error {
	if in.flush == f {
		in.flush = nil
		switch {
		case in.file != f.file: // it is not its content any more, and may have been closed
		case f.err != nil:
			return t.lost(in, f.err)
		default:
			in.named = true
			in.flushed = in.unflushed == f.state && (!in.passthrough || in.writers == 0)
		}
	}
	switch {
	case in.file != f.file:
		return nil
	case in.flushErr == nil && f.err != nil: // it was not even begun
		return t.flushError(in, f.err)
	}
	return in.flushErr
}

// awaitFlush waits for a flush that is under way, and returns the error of those of the
// inode's content; in.mu is held, which that flush needs no more.
func (t *Tree) awaitFlush(in *inode) error {
	if f := in.flush; f != nil {
		<-f.done
		if err := t.endFlush(in, f); err != nil {
			return err
		}
	}
	return in.flushErr
}

// syncBacking flushes an inode's backing file and its name; in.mu is held. A
// flush that failed may have lost what was written before it, and the kernel
// tells of that once: here every later flush fails, too, until the file is
// emptied.
func (t *Tree) syncBacking(in *inode) error {
	failed := t.awaitFlush(in)
	if in.isFlushed() {
		return nil
	}
	if failed != nil {
		return failed
	}
	if err := t.openBacking(in); err != nil {
		return err
	}
	if err := in.file.Datasync(); err != nil {
		return t.lost(in, err)
	}
	in.flushed = !in.passthrough || in.writers == 0
	if in.named {
		return nil
	}
	if err := t.files.SyncName(in.row.backing); err != nil {
		return t.lost(in, err)
	}
	in.named = true
	return nil
}

// flushError is the error of a flush of an inode's content.
func (t *Tree) flushError(in *inode, err error) error {
	return fmt.Errorf("%s: flush: %w", t.Path(in.ino), noSpace(err))
}

// lost takes note that a flush failed, and returns the error of this one and of
// all later ones; in.mu is held. The inode stays in memory, or it would be
// forgotten with it. That too many files were open for one loses nothing.
func (t *Tree) lost(in *inode, err error) error {
	in.flushed = false
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return t.flushError(in, err)
	}
	in.flushErr = t.flushError(in, err)
	if !in.kept {
		in.hold()
		in.kept = true
	}
	return in.flushErr
}

// flushContent flushes the content of a file that a commit has still to take.
func (t *Tree) flushContent(in *inode) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.loose = 0 // if it is in a row, it is flushed when it outgrows that
	if !in.row.has(flagBacking) || !in.row.has(flagDirty) {
		return nil
	}
	return t.flushUnlocked(in)
}

// Sync returns when all that was done before the call survives power loss, as
// far as a local filesystem would promise it without fsync of the files. The
// caller holds no inode's lock.
func (t *Tree) Sync() error {
	t.recordFetched()
	if err := t.syncTo(t.st.Seq()); err != nil {
		return err
	}
	t.runRemovals()
	return nil
}

// syncTo returns when the batch seq, and all before it, survive power loss.
func (t *Tree) syncTo(seq uint64) error { return t.st.SyncTo(seq) }

// Run flushes what changed within a second, names and contents, until ctx ends;
// the kernel does not tell of sync and syncfs. What was fetched has more time.
func (t *Tree) Run(ctx context.Context) error {
	var flushing sync.WaitGroup
	flushing.Go(func() { t.flushWritten(ctx) })
	defer flushing.Wait()
	tick := time.NewTicker(time.Second / 2)
	defer tick.Stop()
	var lull lull
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return errors.Join(t.saveAtimes(), t.SyncAll())
		case <-tick.C:
		}
		if n%atimesEvery == 0 {
			if err := t.saveAtimes(); err != nil {
				t.log.Info("access times were not kept", "err", err)
			}
		}
		if lull.over(t.unrecorded()) {
			t.recordFetched()
		}
		if seq := t.st.Seq(); !t.st.Durable(seq) {
			if err := t.syncTo(seq); err != nil {
				t.log.Error("flushing the journal failed", "err", err)
			}
		}
		t.runRemovals()
	}
}

// SyncDir returns when the names of a directory survive power loss.
func (t *Tree) SyncDir(ctx context.Context, dir Ino) error {
	in, err := t.acquire(ctx, dir)
	if err != nil {
		return err
	}
	defer t.release(in)
	in.mu.Lock()
	seq := t.changedIn(in)
	in.mu.Unlock()
	if !t.st.Durable(seq) {
		waits(ctx)
	}
	return t.syncTo(seq)
}
