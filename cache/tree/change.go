package tree

import (
	"fmt"

	"skep/cache/state"
)

// change is one operation in the making: a batch and the inodes that it alters.
// It holds the gate from begin to apply or abandon, and the lock of every inode
// that was edited. Nothing in memory is altered unless the batch was applied.
type change struct {
	t     *Tree
	b     state.Batch
	now   Time
	epoch uint64
	edits []*edit
	seq   uint64 // after apply

	files, bytes int64 // what the operation adds
}

// edit is the new row of an inode within a change.
type edit struct {
	in    *inode
	row   row
	touch bool // the row is to be written
	mark  bool // the inode's entry is to be marked
	// drop says that the inode loses its last name.
	drop bool
}

// begin starts a change.
func (t *Tree) begin() *change {
	t.gate.RLock()
	return &change{t: t, now: t.now(), epoch: t.epoch.Load()}
}

// edit locks an inode, once, and returns its row to be changed.
func (c *change) edit(in *inode) *edit {
	for _, e := range c.edits {
		if e.in == in {
			return e
		}
	}
	in.mu.Lock()
	e := &edit{in: in, row: in.row}
	c.edits = append(c.edits, e)
	return e
}

// touched says that the row changed and what a commit has to see of it.
func (e *edit) touched() *row {
	e.touch, e.mark = true, true
	return &e.row
}

// local says that the row changed in what stays on this device.
func (e *edit) local() *row {
	e.touch = true
	return &e.row
}

// mark records that the entry changed.
func (c *change) mark(dir Ino, name string) {
	c.b.Put(markKey(dir, name), uint64Value(c.epoch))
}

// markInode records that the inode's record changed, where that lies.
func (c *change) markInode(e *edit) {
	switch {
	case e.in.orphan || e.row.nlink == 0:
		return
	case e.row.has(flagMulti):
		c.mark(Links, linkName(e.in.ino))
	default:
		c.mark(e.row.parent, e.row.name)
	}
}

// linkName is the name of an inode in the table of linked inodes.
func linkName(ino Ino) string { return fmt.Sprintf("%016x", uint64(ino)) }

// putEntry adds a name to a directory whose edit is given.
func (c *change) putEntry(dir *edit, name string, ino Ino, mode uint32) {
	cookie := dir.row.cookie
	dir.local().cookie++
	e := entry{ino: ino, typ: mode & modeType, cookie: cookie}
	c.b.Put(entryKey(dir.in.ino, name), e.encode())
	c.b.Put(cookieKey(dir.in.ino, cookie), append(e.encode(), name...))
	c.mark(dir.in.ino, name)
}

// deleteEntry removes a name from a directory.
func (c *change) deleteEntry(dir Ino, name string, e entry) {
	c.b.Delete(entryKey(dir, name))
	c.b.Delete(cookieKey(dir, e.cookie))
	c.mark(dir, name)
}

// apply writes the batch and, if that succeeds, makes the edits those of the
// inodes in memory. It ends the change either way.
func (c *change) apply() error {
	for _, e := range c.edits {
		if e.mark && e.in.markedEpoch != c.epoch {
			c.markInode(e)
		}
		if e.touch && !e.in.orphan && !e.drop {
			c.b.Put(key(tableInode, e.in.ino), e.row.encode())
		}
	}
	var err error
	if c.b.Len() > 0 {
		c.seq, err = c.t.st.Apply(&c.b)
	}
	if err == nil {
		for _, e := range c.edits {
			c.settle(e)
		}
		c.t.files64.Add(c.files)
		c.t.bytes64.Add(c.bytes)
	}
	c.end()
	if err != nil {
		return noSpace(err)
	}
	c.t.changed()
	return nil
}

// settle makes an applied edit that of the inode.
func (c *change) settle(e *edit) {
	if !e.touch {
		return
	}
	in := e.in
	in.row, in.seq, in.soft = e.row, max(in.seq, c.seq), false
	if e.mark {
		in.markedEpoch = c.epoch
	}
	if e.drop {
		c.t.orphaned(in)
	}
	c.t.recharge(in)
}

// abandon ends a change that is not applied.
func (c *change) abandon() { c.end() }

func (c *change) end() {
	for _, e := range c.edits {
		e.in.mu.Unlock()
	}
	c.edits = nil
	c.t.gate.RUnlock()
}
