package tree

import (
	"bytes"
	"fmt"

	"skep/cache/state"
)

// Carry writes again the rows of what no commit has taken yet, and the named
// values: should the index be lost, the newest commit and a journal that begins
// now give everything back.
func (t *Tree) Carry() error {
	marks, err := t.liveMarks()
	if err != nil {
		return err
	}
	c := carrier{t: t, seen: map[Ino]bool{}}
	for _, m := range marks {
		if err := c.mark(m); err != nil {
			return fmt.Errorf("carry over: %w", err)
		}
	}
	if err := c.singles(); err != nil {
		return fmt.Errorf("carry over: %w", err)
	}
	return c.flush(0)
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

// carrier gathers rows to be written again. It holds the gate exclusively while
// it reads and writes some, so that it never writes what is out of date.
type carrier struct {
	t    *Tree
	seen map[Ino]bool
	keys [][]byte
}

// carryStep is how many rows are written again under one lock.
const carryStep = 256

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
	c.t.gate.Lock()
	defer c.t.gate.Unlock()
	var b state.Batch
	for _, k := range c.keys {
		v, ok, err := c.t.st.Get(k)
		if err != nil {
			return err
		}
		if ok {
			b.Put(k, v)
		} else {
			b.Delete(k) // its absence matters as much
		}
	}
	c.keys = c.keys[:0]
	_, err := c.t.st.Apply(&b)
	return err
}
