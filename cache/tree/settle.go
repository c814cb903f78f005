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
