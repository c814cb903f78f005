package tree

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"skep/cache/state"
)

// Carry writes again the rows of what no commit has taken yet, and the named
// values: should the index be lost, the newest commit, the one that contains all
// up to batch seq, and a journal that begins there give everything back. What is
// changed from now on carries the rest of its rows by itself: see change.carry.
// All is done in pieces, which work is called with one after the other. It returns
// how many bytes it wrote.
func (t *Tree) Carry(seq uint64, work func(piece func() error) error) (int64, error) {
	t.gate.Lock() // changes that did not know are complete
	t.kept.Store(max(t.kept.Load(), seq+1))
	t.gate.Unlock()
	marks, err := t.liveMarks()
	if err != nil {
		return 0, err
	}
	c := carrier{t: t, work: work, seen: map[Ino]bool{}}
	for _, m := range marks {
		if err := c.mark(m); err != nil {
			return c.bytes, fmt.Errorf("carry over: %w", err)
		}
	}
	if err := c.writing(); err != nil {
		return c.bytes, fmt.Errorf("carry over: %w", err)
	}
	if err := c.singles(); err != nil {
		return c.bytes, fmt.Errorf("carry over: %w", err)
	}
	return c.bytes, c.flush(0)
}

func (t *Tree) liveMarks() ([]Mark, error) {
	var out []Mark
	var bad error
	err := t.st.Scan([]byte{tableMark}, []byte{tableMark + 1}, func(k, _ []byte) bool {
		m, err := parseMark(k)
		out, bad = append(out, m), err
		return err == nil
	})
	if err == nil {
		err = bad
	}
	return out, err
}

// carrier gathers rows to be written again.
type carrier struct {
	t     *Tree
	work  func(piece func() error) error
	seen  map[Ino]bool
	keys  [][]byte
	bytes int64
}

// carryStep is how many rows are written again in one batch.
const carryStep = 32

func (c *carrier) mark(m Mark) error {
	c.keys = append(c.keys, markKey(m.Dir, m.Name))
	if m.Dir == Links || m.Dir == 0 {
		var ino uint64
		if _, err := fmt.Sscanf(m.Name, "%016x", &ino); err == nil {
			c.inode(Ino(ino))
		}
		return c.flush(carryStep)
	}
	c.inode(m.Dir)
	ek := entryKey(m.Dir, m.Name)
	c.keys = append(c.keys, ek)
	if v, ok, err := c.t.st.Get(ek); err != nil {
		return err
	} else if e, derr := decodeEntry(v); ok && derr == nil {
		c.keys = append(c.keys, cookieKey(m.Dir, e.cookie))
		c.inode(e.ino)
	}
	return c.flush(carryStep)
}

func (c *carrier) inode(ino Ino) {
	if c.seen[ino] {
		return
	}
	c.seen[ino] = true
	for _, table := range []byte{tableInode, tableInline, tableXattrs, tableRanges, tableWriting} {
		c.keys = append(c.keys, key(table, ino))
	}
	r, err := c.t.rowNow(ino)
	if err != nil || !r.has(flagBacking) {
		return
	}
	c.keys = append(c.keys, backingKey(r.backing))
	added := key(tableAdded, ino)
	_ = c.t.st.Scan(added, state.PrefixEnd(added), func(k, _ []byte) bool { // a fault comes up again in flush
		c.keys = append(c.keys, bytes.Clone(k))
		return true
	})
}

// writing gathers the rows of files that are open for writing: the kernel may
// write one alone that a commit has taken, and no mark tells of it.
func (c *carrier) writing() error {
	var inos []Ino
	err := c.t.st.Scan([]byte{tableWriting}, []byte{tableWriting + 1}, func(k, _ []byte) bool {
		if m, err := parseMark(k); err == nil && !c.seen[m.Dir] {
			inos = append(inos, m.Dir)
		}
		return true
	})
	for _, ino := range inos {
		r, rerr := c.t.rowNow(ino)
		if isStale(rerr) {
			continue
		}
		if err = errors.Join(err, rerr); err != nil {
			return err
		}
		m := Mark{r.parent, r.name}
		if r.has(flagMulti) {
			m = Mark{Links, linkName(ino)}
		}
		if err = c.mark(m); err != nil {
			return err
		}
	}
	return err
}

// singles gathers the named values and the pins, which no commit has.
func (c *carrier) singles() error {
	for _, table := range []byte{tableSingle, tablePin} {
		err := c.t.st.Scan([]byte{table}, []byte{table + 1}, func(k, _ []byte) bool {
			c.keys = append(c.keys, append([]byte(nil), k...))
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// flush writes the gathered rows again, if there are more than least.
func (c *carrier) flush(least int) error {
	if len(c.keys) <= least {
		return nil
	}
	for some := range slices.Chunk(c.keys, carryStep) {
		if err := c.work(func() error { return c.again(some) }); err != nil {
			return err
		}
	}
	c.keys = c.keys[:0]
	return nil
}

// again writes some rows again, in one batch.
func (c *carrier) again(keys [][]byte) error {
	look, rows := c.t.st.Look(), make([]state.Row, len(keys))
	for i, k := range keys {
		v, there, err := c.t.st.Get(k)
		if err != nil {
			return err
		}
		if rows[i].Key = k; there {
			rows[i].Value = append([]byte{}, v...)
		}
	}
	return c.t.st.Change(look, rows, func(b *state.Batch, now state.Row) {
		b.Freeing() // the journal forgets what is written again
		if now.Value != nil {
			b.Put(now.Key, now.Value)
		} else {
			b.Delete(now.Key) // its absence matters as much
		}
		c.bytes += int64(len(now.Key) + len(now.Value))
	})
}

// carry adds to the change, before all else, the rows that an inode's own row is
// nothing without and that the journal may not say any more: an inode that was
// not changed for long has them in the index alone. The inode's lock is held.
func (c *change) carry(in *inode) error {
	r, t := &in.row, c.t
	again := func(k []byte) ([]byte, error) {
		v, there, err := t.st.Get(k)
		if there && err == nil {
			c.first.Put(k, v)
		}
		return v, err
	}
	keys := [][]byte{key(tableXattrs, in.ino)}
	if r.has(flagInline) || r.mode&modeType == modeLnk {
		keys = append(keys, key(tableInline, in.ino))
	}
	if r.has(flagBacking) {
		keys = append(keys, backingKey(r.backing), key(tableRanges, in.ino), key(tableWriting, in.ino))
		for n := range in.added.n {
			keys = append(keys, addedKey(in.ino, n))
		}
	}
	for _, k := range keys {
		if _, err := again(k); err != nil {
			return err
		}
	}
	if r.has(flagMulti) || in.ino == Root || r.nlink == 0 {
		return nil // no name is marked for it
	}
	v, err := again(entryKey(r.parent, r.name))
	if err != nil || v == nil {
		return err
	}
	e, err := decodeEntry(v)
	if err == nil {
		_, err = again(cookieKey(r.parent, e.cookie))
	}
	return err
}
