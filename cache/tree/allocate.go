package tree

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Allocate reserves, zeroes or punches out a range, as fallocate.
func (f *File) Allocate(ctx context.Context, off, n int64, mode uint32) error {
	const known = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_ZERO_RANGE
	switch {
	case !f.writable:
		return ErrPerm
	case off < 0 || n <= 0:
		return ErrInvalid
	case off+n > MaxSize:
		return ErrFileTooBig
	case mode&^known != 0:
		return ErrUnsupported
	}
	if mode&unix.FALLOC_FL_PUNCH_HOLE == 0 {
		if err := f.t.room.Write(ctx, n); err != nil {
			return err
		}
	}
	err := f.allocate(ctx, off, n, mode)
	if errors.Is(err, ErrNoSpace) && !errors.Is(err, errManyRanges) {
		err = f.t.room.Again(ctx, n, func() error { return f.allocate(ctx, off, n, mode) })
	}
	if err == nil && f.sync {
		err = f.Sync(ctx, true)
	}
	return err
}

func (f *File) allocate(ctx context.Context, off, n int64, mode uint32) error {
	in, t := f.in, f.t
	if isZeroing(mode) {
		if err := t.preserveAhead(ctx, in, off, off+n); err != nil {
			return err
		}
	}
	t.gate.RLock()
	defer t.gate.RUnlock()
	defer t.changed()
	in.mu.Lock()
	defer in.mu.Unlock()
	t.refresh(in)
	if !in.row.has(flagBacking) {
		if err := t.moveToBacking(in); err != nil {
			return err
		}
	}
	if isZeroing(mode) {
		if err := t.mayScatter(in, off, off+n); err != nil {
			return err
		}
	}
	return t.allocate(in, off, off+n, mode)
}

func isZeroing(mode uint32) bool {
	return mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0
}

func (t *Tree) allocate(in *inode, from, to int64, mode uint32) error {
	if err := t.beginWriting(in); err != nil {
		return err
	}
	if err := t.openBacking(in); err != nil {
		return err
	}
	zeroes := isZeroing(mode)
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		if err := t.tellEnd(in, to); err != nil {
			return err
		}
	}
	if zeroes {
		if err := t.preserve(in, from, min(to, in.row.size)); err != nil {
			return err
		}
	}
	t.changedContent(in)
	was, statErr := in.file.Stat()
	failed := in.file.Allocate(mode, from, to-from)
	if failed == unix.EOPNOTSUPP {
		return ErrUnsupported
	}
	end := in.row.size
	switch {
	case failed == nil && mode&unix.FALLOC_FL_KEEP_SIZE == 0:
		end = max(end, to)
	case failed != nil && to > end && statErr == nil && was.Blocks*512 <= wholePages(end):
		// What it took behind the end is no use to anybody, and nothing was reserved there.
		failed = errors.Join(failed, in.file.Truncate(end))
	}
	in.soft = true
	defer t.countLocal(in) // noteWrite estimates that it takes as much more
	var err error
	if zeroes && from < min(to, end) { // of one that failed, too: a part may be done
		err = t.noteWrite(in, nil, from, min(to, end))
	} else if failed == nil {
		err = t.noteWrite(in, nil, in.row.size, end)
	}
	if failed != nil {
		return noSpace(fmt.Errorf("%s: allocate: %w", t.Path(in.ino), failed))
	}
	return err
}
