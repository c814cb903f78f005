package tree

import (
	"context"
	"fmt"
	"time"
)

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

// syncBacking flushes an inode's backing file and its name; in.mu is held. A
// flush that failed may have lost what was written before it, and the kernel
// tells of that once: here every later flush fails, too, until the file is
// emptied.
func (t *Tree) syncBacking(in *inode) error {
	if !in.row.has(flagBacking) || in.flushed && in.named {
		return nil
	}
	if in.flushErr != nil {
		return in.flushErr
	}
	if err := t.openBacking(in); err != nil {
		return err
	}
	if err := in.file.Datasync(); err != nil {
		in.flushErr = fmt.Errorf("%s: flush: %w", t.Path(in.ino), noSpace(err))
		return in.flushErr
	}
	in.flushed = !in.passthrough || in.writers == 0
	if in.named {
		return nil
	}
	if err := t.files.SyncName(in.row.backing); err != nil {
		return err
	}
	in.named = true
	return nil
}

// flushContent flushes the content of a file that a commit has still to take.
func (t *Tree) flushContent(in *inode) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.row.has(flagBacking) || !in.row.has(flagDirty) {
		return nil
	}
	err := t.syncBacking(in)
	t.closeBacking(in)
	return err
}

// Sync returns when all that was done before the call survives power loss, as
// far as a local filesystem would promise it without fsync of the files. The
// caller holds no inode's lock.
func (t *Tree) Sync() error {
	t.recordFetched()
	if err := t.st.Sync(); err != nil {
		return err
	}
	t.runRemovals()
	return nil
}

// Run flushes the journal a second after a change at the latest, until ctx
// ends; the kernel does not tell of sync and syncfs.
func (t *Tree) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return t.Sync()
		case <-tick.C:
		}
		if !t.st.Durable(t.st.Seq()) || t.hasFetched() {
			if err := t.Sync(); err != nil {
				t.log.Error("flushing the journal failed", "err", err)
			}
		}
		t.runRemovals()
	}
}

// SyncDir returns when the names of a directory survive power loss.
func (t *Tree) SyncDir(context.Context, Ino) error { return t.Sync() }
