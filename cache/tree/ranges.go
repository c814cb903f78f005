package tree

import (
	"fmt"

	"skep/cache/backing"
)

// encodeRanges is the ranges row: valid, then dirty, then whether dirty is
// known at all.
func (in *inode) encodeRanges() []byte {
	b := in.valid.Append(nil)
	b = in.dirty.Append(b)
	if in.whole {
		return append(b, 1)
	}
	return append(b, 0)
}

// readRanges brings the ranges into memory; in.mu is held. Without a row, a
// resident file that is dirty may have changed everywhere.
func (t *Tree) readRanges(in *inode) error {
	if in.ranged || in.orphan {
		in.ranged = true
		return nil
	}
	b, ok, err := t.st.Get(key(tableRanges, in.ino))
	if err != nil {
		return err
	}
	if !ok {
		in.whole = in.row.has(flagDirty)
		in.ranged = true
		return nil
	}
	valid, rest, err := backing.DecodeRanges(b)
	if err != nil {
		return fmt.Errorf("%s: %w", t.Path(in.ino), err)
	}
	dirty, rest, err := backing.DecodeRanges(rest)
	if err != nil || len(rest) != 1 {
		return fmt.Errorf("%s: ranges row: %w", t.Path(in.ino), backing.ErrFormat)
	}
	in.valid, in.dirty, in.whole, in.ranged = valid, dirty, rest[0] == 1, true
	return nil
}
