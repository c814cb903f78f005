package tree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

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
	err := c.view.Scan([]byte{tableMark}, []byte{tableMark + 1}, func(k, v []byte) bool {
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
	return c.view.Scan(key(tableMark, dir), key(tableMark, dir+1), func(k, v []byte) bool {
		if valueUint64(v) <= c.epoch {
			fn(string(k[9:]))
		}
		return true
	})
}

// IsMarked reports whether an entry changed up to the cut.
func (c *Cut) IsMarked(m Mark) (bool, error) {
	v, ok, err := c.view.Get(markKey(m.Dir, m.Name))
	return ok && valueUint64(v) <= c.epoch, err
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
	start := []byte{tableMark}
	for start != nil {
		look, next, n := c.t.st.Look(), []byte(nil), 0
		var taken []state.Row
		err := c.t.st.Scan(start, []byte{tableMark + 1}, func(k, v []byte) bool {
			if m, err := parseMark(k); err == nil && valueUint64(v) <= c.epoch && !keep[m] {
				taken = append(taken, state.Row{Key: bytes.Clone(k), Value: bytes.Clone(v)})
			}
			if n++; n == clearScan {
				next = append(bytes.Clone(k), 0)
			}
			return n < clearScan
		})
		if err == nil {
			err = c.clear(look, taken)
		}
		if err != nil {
			return err
		}
		start = next
	}
	c.t.took(c, keep)
	return nil
}

const (
	clearScan = 1024 // marks that are looked at in one go
	clearStep = 32   // that are removed in one batch
	// clearMany is from how many marks on that were removed the later commits,
	// which look for marks, would feel what is left of them in the index.
	clearMany = 1 << 16
)

// clear removes marks, unless they were made again.
func (c *Cut) clear(look state.Look, taken []state.Row) error {
	c.cleared += len(taken)
	for some := range slices.Chunk(taken, clearStep) {
		err := c.t.st.Change(look, some, func(b *state.Batch, now state.Row) {
			b.Freeing()
			if now.Value != nil && valueUint64(now.Value) <= c.epoch {
				b.Delete(now.Key)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}
