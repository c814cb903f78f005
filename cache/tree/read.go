package tree

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"skep/chunker/dag"
)

// ReadAt reads up to len(p) bytes at off; fewer, even none, only at the end of
// the file. What is not on this device is fetched.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	in, t := f.in, f.t
	in.mu.Lock()
	defer in.mu.Unlock()
	t.refresh(in)
	if !f.noAtime {
		t.touchAtime(in)
	}
	t.readAhead(in, off/dag.ChunkSize)
	for {
		n, err := t.readIn(ctx, in, p, off)
		if err != errBecameOther {
			return n, err
		}
	}
}

// errBecameOther says that a file became another while it was waited for its content, so
// that it has to be looked at again.
var errBecameOther = errors.New("file has changed meanwhile")

// readIn is ReadAt of an inode; in.mu is held, but for the waits.
func (t *Tree) readIn(ctx context.Context, in *inode, p []byte, off int64) (int, error) {
	n := min(int64(len(p)), in.row.size-off)
	if n <= 0 {
		return 0, nil
	}
	err := t.fetch(ctx, in, off, off+n)
	if n = min(n, in.row.size-off); n <= 0 { // it was cut meanwhile
		return 0, nil
	}
	p = p[:n]
	if errors.Is(err, errNotKept) {
		return t.readThrough(ctx, in, p, off)
	}
	if err != nil {
		return 0, err
	}
	if in.row.has(flagInline) {
		b, err := t.inlineContent(in)
		if err != nil {
			return 0, err
		}
		clear(p[copy(p, b[min(off, int64(len(b))):]):])
		return len(p), nil
	}
	return t.readBacking(in, p, off)
}

// readThrough reads without keeping what has to be fetched, since there is no
// room for it, or returns errBecameOther; in.mu is held, but for the waits.
func (t *Tree) readThrough(ctx context.Context, in *inode, p []byte, off int64) (int, error) {
	f, at := in.row.committed(), off
	for rest := p; len(rest) > 0; {
		end := min(at+int64(len(rest)), (at/dag.ChunkSize+1)*dag.ChunkSize)
		piece := rest[:end-at]
		if in.row.has(flagBacking) && in.valid.Contains(at, end) {
			if _, err := t.readBacking(in, piece, at); err != nil {
				return 0, err
			}
		} else {
			in.mu.Unlock()
			chunk, err := t.passing.read(ctx, t.content, f, at/dag.ChunkSize)
			in.mu.Lock()
			if in.movedFrom(f) && ctx.Err() == nil {
				return 0, errBecameOther
			}
			if err != nil {
				return 0, fmt.Errorf("%s: %w", t.Path(in.ino), err)
			}
			clear(piece[copy(piece, chunk[min(at%dag.ChunkSize, int64(len(chunk))):]):])
			for _, r := range in.valid.Within(at, end) {
				if _, err := t.readBacking(in, piece[r.From-at:r.To-at], r.From); err != nil {
					return 0, err
				}
			}
		}
		rest, at = rest[end-at:], end
	}
	return len(p), nil
}

// readBacking reads what is known to be in the backing file; in.mu is held.
func (t *Tree) readBacking(in *inode, p []byte, off int64) (int, error) {
	if err := t.openBacking(in); err != nil {
		return 0, err
	}
	n, err := in.file.ReadAt(p, off)
	if err == io.EOF {
		clear(p[n:]) // a hole at the end
		n, err = len(p), nil
	}
	if err != nil {
		return n, fmt.Errorf("%s: %w", t.Path(in.ino), err)
	}
	return n, nil
}

// inlineContent returns the content row of an inode; in.mu is held. The caller
// must not change it.
func (t *Tree) inlineContent(in *inode) ([]byte, error) {
	if in.orphan && !in.left {
		return in.inline, nil
	}
	b, _, err := t.st.Get(key(tableInline, in.ino))
	return b, err
}

// Seek finds data or a hole, as lseek with SEEK_DATA and SEEK_HOLE.
func (f *File) Seek(ctx context.Context, off int64, whence int) (int64, error) {
	in := f.in
	in.mu.Lock()
	defer in.mu.Unlock()
	f.t.refresh(in)
	if off < 0 || off >= in.row.size {
		return 0, ErrNoRange
	}
	if !in.row.knowsHoles() {
		if whence == unix.SEEK_HOLE {
			return in.row.size, nil
		}
		return off, nil // what is not here may be data
	}
	if err := f.t.openBacking(in); err != nil {
		return 0, err
	}
	n, err := in.file.Seek(off, whence)
	if err == unix.ENXIO && whence == unix.SEEK_DATA {
		return 0, ErrNoRange
	}
	if err != nil {
		return 0, fmt.Errorf("seek: %w", err)
	}
	return min(n, in.row.size), nil
}

// knowsHoles reports whether the backing file tells data from holes: all is in it.
func (r *row) knowsHoles() bool { return r.has(flagBacking) && !r.has(flagPartial) }
