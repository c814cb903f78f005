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

// Sync returns when all that was done before the call survives power loss, as
// far as a local filesystem would promise it without fsync of the files.
func (t *Tree) Sync() error {
	if err := t.syncFirst(); err != nil {
		return err
	}
	if err := t.st.Sync(); err != nil {
		return err
	}
	t.runRemovals()
	return nil
}

// syncFirst flushes the backing files whose content must be on the disk before
// the journal says that it is theirs: content that was safe in the journal
// before, or in the file that a rename replaced, or that was brought here. It
// takes no inode's lock: callers hold some.
func (t *Tree) syncFirst() error {
	t.firstMu.Lock() // who comes later waits for what is being flushed
	defer t.firstMu.Unlock()
	t.removeMu.Lock()
	todo := t.preSync
	t.preSync = map[uint64]*inode{}
	t.removeMu.Unlock()
	var first error
	for n, in := range todo {
		err := t.files.Sync(n)
		if err == nil && in.named.Load() != n {
			if err = t.files.SyncName(n); err == nil {
				in.named.Store(n)
			}
		}
		if err != nil && !absent(err) && first == nil { // what was removed since is of no interest
			first = noSpace(err)
		}
	}
	return first
}

// syncBeforeJournal makes the next Sync flush in's backing file n first.
func (t *Tree) syncBeforeJournal(in *inode, n uint64) {
	if n == 0 {
		return
	}
	t.removeMu.Lock()
	defer t.removeMu.Unlock()
	t.preSync[n] = in
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
		if !t.st.Durable(t.st.Seq()) {
			if err := t.Sync(); err != nil {
				t.log.Error("flushing the journal failed", "err", err)
			}
		}
		t.runRemovals()
	}
}

// SyncDir returns when the names of a directory survive power loss.
func (t *Tree) SyncDir(context.Context, Ino) error { return t.Sync() }
