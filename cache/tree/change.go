package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"skep/cache/state"
)

// change is one operation in the making: a batch and the inodes that it alters.
// It holds the gate from begin to apply or abandon, and the lock of every inode
// that was edited. Nothing in memory is altered unless the batch was applied.
// It ends with apply, applyLocked or abandon, and so do its edits.
type change struct {
	t     *Tree
	b     state.Batch
	first state.Batch // goes before b
	err   error       // why the change cannot be applied
	now   Time
	epoch uint64
	seq   uint64 // after apply

	grown tally // what the rows take more than before: see count
	came  int64 // bytes of content that are here with rows of the commit

	edits    [4]edit // of them, n are in use: a rename has the most
	n        int
	entries  []entryChange
	reserved uint64 // up to which numbers of backing files are
	folded   *inode // whose ranges row takes in what was added

	files int64 // how many the operation adds

	key, value []byte // scratch for a row
}

// edit is the new row of an inode within a change.
type edit struct {
	in    *inode
	row   row
	touch bool // the row is to be written
	mark  bool // the inode's entry is to be marked
	// xattrs are the attributes that the inode is to have; nil: as before.
	xattrs map[string][]byte
	// drop says that the inode loses its last name.
	drop bool
	// adopt says that the inode, an orphan, gets its first name.
	adopt bool
	// leave says that its content row stays for now: see leftovers.
	leave bool
}

// changes keeps those that ended, for their memory.
var changes = sync.Pool{New: func() any { return new(change) }}

// keepBatch is up to which size the memory of a batch is kept.
const keepBatch = 64 << 10

func (t *Tree) newChange() *change {
	c := changes.Get().(*change)
	c.t, c.now, c.epoch = t, t.now(), t.epoch.Load()
	return c
}

func (c *change) recycle() {
	clear(c.edits[:c.n])
	clear(c.entries)
	c.b.Reset()
	*c = change{b: c.b, entries: c.entries[:0], key: c.key[:0], value: c.value[:0]}
	if c.b.Cap() <= keepBatch {
		changes.Put(c)
	}
}

// begin starts a change.
func (t *Tree) begin() *change {
	t.gate.RLock()
	return t.newChange()
}

// edit locks an inode, once, and returns its row to be changed.
func (c *change) edit(in *inode) *edit {
	if e := c.edited(in); e != nil {
		return e
	}
	in.mu.Lock()
	return c.addEdit(in)
}

// editRemoved is edit for an inode that is about to lose a name. If it is the
// last one, no row is needed any more that only the index has.
func (c *change) editRemoved(in *inode) *edit {
	if e := c.edited(in); e != nil {
		return e
	}
	in.mu.Lock()
	if in.row.isDir() || in.row.nlink == 1 {
		return c.newEdit(in)
	}
	return c.addEdit(in)
}

// edited returns the edit of an inode that is locked already, else nil.
func (c *change) edited(in *inode) *edit {
	for i := range c.n {
		if c.edits[i].in == in {
			return &c.edits[i]
		}
	}
	return nil
}

// addEdit makes an edit of an inode that is locked, and carries on what the
// journal may not say of it any more.
func (c *change) addEdit(in *inode) *edit {
	e := c.newEdit(in)
	if in.seq < c.t.kept.Load() && !in.orphan {
		c.err = errors.Join(c.err, c.carry(in))
	}
	return e
}

func (c *change) newEdit(in *inode) *edit {
	e := &c.edits[c.n]
	c.n++
	e.in, e.row = in, in.row
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

// ownKey is the key of an inode's row in a table, until the next of its kind.
func (c *change) ownKey(table byte, ino Ino) []byte {
	c.key = appendKey(c.key[:0], table, ino)
	return c.key
}

// nameKey is the key of a row that belongs to a name, until the next of its kind.
func (c *change) nameKey(table byte, dir Ino, name string) []byte {
	c.key = append(appendKey(c.key[:0], table, dir), name...)
	return c.key
}

// uint64Value is a row's value, until the next.
func (c *change) uint64Value(v uint64) []byte {
	c.value = binary.BigEndian.AppendUint64(c.value[:0], v)
	return c.value
}

// putRow writes the inode's row, and that of its ranges if that could not be told what is
// here up to the size.
func (c *change) putRow(e *edit) {
	if e.in.untold && e.row.has(flagPartial) && c.folded != e.in {
		c.putChanged(e.in)
	}
	c.grown = c.grown.plus(e.row.tally()).minus(e.in.counted)
	c.value = e.row.append(c.value[:0])
	c.b.Put(c.ownKey(tableInode, e.in.ino), c.value)
}

// mark records that the entry changed.
func (c *change) mark(dir Ino, name string) {
	c.b.Put(c.nameKey(tableMark, dir, name), c.uint64Value(c.epoch))
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
	e := entry{ino: ino, typ: mode & modeType, cookie: dir.row.cookie}
	dir.local().cookie++
	c.value = e.append(c.value[:0])
	c.b.Put(c.nameKey(tableEntry, dir.in.ino, name), c.value)
	c.value = append(c.value, name...)
	c.b.Put(c.cookieKey(dir.in.ino, e.cookie), c.value)
	c.mark(dir.in.ino, name)
	c.entries = append(c.entries, entryChange{dir: dir.in, name: name, to: e})
}

// deleteEntry removes a name from a directory whose edit is given.
func (c *change) deleteEntry(dir *edit, name string, e entry) {
	c.b.Delete(c.nameKey(tableEntry, dir.in.ino, name))
	c.b.Delete(c.cookieKey(dir.in.ino, e.cookie))
	c.mark(dir.in.ino, name)
	c.entries = append(c.entries, entryChange{dir: dir.in, name: name, gone: true})
}

func (c *change) cookieKey(dir Ino, cookie uint64) []byte {
	c.key = binary.BigEndian.AppendUint64(appendKey(c.key[:0], tableCookie, dir), cookie)
	return c.key
}

// apply writes the batch and, if that succeeds, makes the edits those of the
// inodes in memory. It ends the change either way.
func (c *change) apply() error {
	t := c.t
	err := c.write()
	c.abandon()
	if err != nil {
		return noSpace(err)
	}
	t.changed()
	return nil
}

// write completes the batch by the rows that were edited, and applies it.
func (c *change) write() error {
	for i := range c.n {
		e := &c.edits[i]
		if e.mark && e.in.markedEpoch != c.epoch {
			c.markInode(e)
		}
		if e.touch && !e.in.orphan && e.drop {
			c.grown = c.grown.minus(e.in.counted)
		}
		if e.touch && (!e.in.orphan || e.adopt) && !e.drop {
			c.putRow(e)
			if e.xattrs != nil {
				c.putXattrs(e.in.ino, e.xattrs)
			}
		}
	}
	if c.b.Len() > 0 {
		var err error
		if c.seq, err = c.send(); err != nil {
			return err
		}
	}
	for _, e := range c.entries {
		c.t.settleEntry(e)
	}
	if c.reserved > 0 {
		c.t.backingLimit.Store(c.reserved)
	}
	if c.folded != nil {
		c.folded.added, c.folded.untold = addedWrites{}, false
	}
	for i := range c.n {
		c.settle(&c.edits[i])
	}
	c.t.files64.Add(c.files)
	c.t.here64.Add(c.came)
	return nil
}

// send applies the batch.
func (c *change) send() (uint64, error) {
	if c.err != nil {
		return 0, c.err
	}
	c.b.After(&c.first)
	c.grown.here += c.came
	return c.t.count.apply(c.t.st, &c.b, c.files, c.grown)
}

// settle makes an applied edit that of the inode.
func (c *change) settle(e *edit) {
	in := e.in
	in.seq = max(in.seq, c.seq)
	if !e.touch {
		return
	}
	if e.adopt {
		c.t.adopted(in, &e.row)
	}
	in.row, in.atimeSoft = e.row, false
	in.soft = in.soft && in.writing && in.writers == 0 // its ranges are still to be told: see stayWritten
	if in.counted = (tally{}); !in.orphan && !e.drop {
		in.counted = e.row.tally()
	}
	if e.mark {
		in.markedEpoch = c.epoch
	}
	if e.xattrs != nil {
		in.xattrs, in.xattrsRead = e.xattrs, true
	}
	if e.drop {
		in.left = e.leave
		c.t.orphaned(in)
	}
	c.t.recharge(in)
}

// abandon ends a change that is not applied.
func (c *change) abandon() {
	t := c.t
	for i := range c.n {
		c.edits[i].in.dropXattrs()
		c.edits[i].in.mu.Unlock()
	}
	c.recycle()
	t.gate.RUnlock()
}

// lockedChange is a change of one inode whose lock, and the gate, are held
// already. It ends with applyLocked.
func (t *Tree) lockedChange(in *inode) (*change, *edit) {
	c := t.newChange()
	return c, c.addEdit(in)
}

// applyLocked is apply for a lockedChange: it lets go of no lock.
func (c *change) applyLocked() error {
	e := &c.edits[0]
	if e.in.orphan {
		c.b.Reset()
	}
	err := c.write()
	c.recycle()
	if err != nil {
		return noSpace(err)
	}
	return nil
}
