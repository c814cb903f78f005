package tree

import (
	"context"

	"skep/chunker/link"
)

// Settled is an inode whose content a commit has taken.
type Settled struct {
	Ino     Ino
	Content link.Link // root of the file or directory; zero for inline content
	Size    int64
}

// Settle makes the commit's content the committed content of these inodes:
// what did not change since the cut is clean. It is called when the commit is
// published, for some inodes at a time. A file that the local disk does not take is
// not clean either, but no commit looks at it before it changes again: this one has
// all that can be read of it.
func (c *Cut) Settle(ctx context.Context, done []Settled) error {
	lost, err := c.flush(ctx, done)
	if err != nil {
		return err
	}
	for _, s := range done {
		if err := c.settle(ctx, s, lost[s.Ino]); err != nil && !isStale(err) {
			return err
		}
	}
	return nil
}

// flushedAlone is how many files are flushed one by one; more, with the whole
// disk.
const flushedAlone = 8

// flush makes the backing files of these inodes survive power loss, so that
// they need no longer be looked at after one. It tells of which it could not.
func (c *Cut) flush(ctx context.Context, done []Settled) (lost map[Ino]bool, err error) {
	t := c.t
	var todo []*inode
	defer func() {
		for _, in := range todo {
			t.release(in)
		}
	}()
	for _, s := range done {
		in, err := t.acquire(ctx, s.Ino)
		if isStale(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if in.needsFlush() {
			todo = append(todo, in)
		} else {
			t.release(in)
		}
	}
	all := len(todo) > flushedAlone && t.syncDisk() == nil && !t.diskFailed.Load() // else it is asked which it was
	lost = map[Ino]bool{}
	for _, in := range todo {
		if all && !t.hasLost(in) {
			continue
		}
		if err := t.flushContent(in); err != nil {
			t.log.Warn("a commit has it, and the disk does not take it", "err", err)
			lost[in.ino] = true
		}
	}
	return lost, nil
}

// hasLost reports whether a flush of the inode failed.
func (t *Tree) hasLost(in *inode) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return t.awaitFlush(in) != nil
}

func (in *inode) needsFlush() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.row.has(flagBacking) && in.row.has(flagDirty) && !(in.flushed && in.named)
}

func (c *Cut) settle(ctx context.Context, s Settled, lost bool) error {
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
		in.before = nil
		t.thaw(in)
		return nil
	}
	if in.row.has(flagPartial) { // it may have left memory since it was read
		if err := t.readRanges(in); err != nil {
			return err
		}
	}
	ch, e := t.lockedChange(in)
	ch.b.Freeing()
	r := e.local()
	r.content, r.contentSize = s.Content, s.Size
	if r.isFile() {
		r.flags |= flagCommitted
	}
	clean := r.isFile() && r.dirtyEpoch <= c.epoch && !(in.passthrough && in.writers > 0) && !lost
	if clean {
		r.flags &^= flagDirty
		if r.has(flagBacking) {
			ch.b.Delete(key(tableWriting, in.ino))
		}
		ch.listSmall(e)
		switch {
		case r.has(flagBacking) && !r.has(flagPartial):
			ch.dropRanges(in)
		case in.added.n > 0 && in.isFlushed(): // else something was fetched meanwhile: see recordRanges
			ch.putRanges(in)
		}
	}
	if err := ch.applyLocked(); err != nil {
		return err
	}
	if clean {
		in.writing, in.soft = false, false
		in.dirty.Clear()
		in.whole, in.ranged = false, true
	}
	in.before = nil
	t.thaw(in)
	return nil
}
