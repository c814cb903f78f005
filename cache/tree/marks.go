package tree

import (
	"encoding/binary"
	"errors"

	"skep/cache/state"
)

// Mark is an entry that changed.
type Mark struct {
	Dir  Ino
	Name string
}

// Marks calls fn for the entries that changed up to the cut, directory by
// directory, names in order.
func (c *Cut) Marks(fn func(Mark) error) error {
	var ferr error
	err := c.snap.Scan([]byte{tableMark}, []byte{tableMark + 1}, func(k, v []byte) bool {
		if valueUint64(v) > c.epoch {
			return true
		}
		m, err := parseMark(k)
		if err == nil {
			err = fn(m)
		}
		ferr = err
		return err == nil
	})
	return errors.Join(err, ferr)
}

// MarksOf calls fn for the marked names of one directory, in order.
func (c *Cut) MarksOf(dir Ino, fn func(name string)) error {
	return c.snap.Scan(key(tableMark, dir), key(tableMark, dir+1), func(k, v []byte) bool {
		if valueUint64(v) <= c.epoch {
			fn(string(k[9:]))
		}
		return true
	})
}

func parseMark(k []byte) (Mark, error) {
	if len(k) < 9 {
		return Mark{}, errors.New("malformed mark row")
	}
	return Mark{Ino(binary.BigEndian.Uint64(k[1:9])), string(k[9:])}, nil
}

// ClearMarks removes the marks that the commit has taken, except of entries in
// keep, and those that a later epoch made again.
func (c *Cut) ClearMarks(keep map[Mark]bool) error {
	const batch = 500
	start := []byte{tableMark}
	for start != nil {
		var err error
		if start, err = c.clearSome(start, batch, keep); err != nil {
			return err
		}
	}
	return nil
}

// clearSome looks at up to n marks from start on; it returns where to go on.
func (c *Cut) clearSome(start []byte, n int, keep map[Mark]bool) (next []byte, err error) {
	c.t.gate.Lock() // no mark may be made between looking and deleting
	defer c.t.gate.Unlock()
	var b state.Batch
	b.Freeing()
	err = c.t.st.Scan(start, []byte{tableMark + 1}, func(k, v []byte) bool {
		if m, perr := parseMark(k); perr == nil && valueUint64(v) <= c.epoch && !keep[m] {
			b.Delete(k)
		}
		n--
		next = append(append([]byte(nil), k...), 0)
		return n > 0
	})
	if n > 0 {
		next = nil
	}
	if err != nil || b.Len() == 0 {
		return next, err
	}
	_, err = c.t.st.Apply(&b)
	return next, err
}
