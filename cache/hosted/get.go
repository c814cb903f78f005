package hosted

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"skep/chunker/erasure"
	"skep/chunker/group"
)

// window is how much of a shard is read from the network and written at once.
const window = 512 << 10

var windows = sync.Pool{New: func() any { return new([window]byte) }}

// WriteSlice writes the Bao slice of a range of a shard to w. It returns
// fs.ErrNotExist when the shard is not held, or turned out to be damaged and
// was removed: what was written of it is right as far as it goes. A range
// outside the shard gives group.ErrInvalid; other errors are those of w.
func (s *Store) WriteSlice(w io.Writer, id group.ID, number uint16, offset, length int) error {
	return s.readRange(id, number, offset, length, func(sh *shardFile) error {
		return erasure.WriteSlice(w, sh, sh.head.outboard, offset, length)
	})
}

// WriteRange writes the bytes of a range of a shard to w, unchecked, with
// errors as WriteSlice has them. Nothing is written before the first of them
// could be read.
func (s *Store) WriteRange(w io.Writer, id group.ID, number uint16, offset, length int) error {
	return s.readRange(id, number, offset, length, func(sh *shardFile) error {
		buf := windows.Get().(*[window]byte)
		defer windows.Put(buf)
		for length > 0 {
			p := buf[:min(length, window)]
			if _, err := sh.ReadAt(p, int64(offset)); err != nil {
				return cutShort(err)
			}
			if _, err := w.Write(p); err != nil {
				return err
			}
			offset, length = offset+len(p), length-len(p)
		}
		return nil
	})
}

// readRange is read for a range, which it finds inside the shard.
func (s *Store) readRange(id group.ID, number uint16, offset, length int, use func(*shardFile) error) error {
	return s.read(id, number, func(sh *shardFile) error {
		if offset < 0 || length <= 0 || length > sh.size-offset {
			return fmt.Errorf("range %d+%d of %d bytes: %w", offset, length, sh.size, errRange)
		}
		if length >= directRead {
			sh.direct = s.openDirect(sh.name, os.O_RDONLY)
		}
		return use(sh)
	})
}

// WriteSamples writes the answer to an audit of a shard to w, with errors as
// WriteSlice has them.
func (s *Store) WriteSamples(w io.Writer, id group.ID, number uint16, nonce erasure.Nonce, count int) error {
	return s.read(id, number, func(sh *shardFile) error {
		return erasure.WriteSamples(w, sh, sh.head.outboard, nonce, sh.root, count)
	})
}

var errRange = fmt.Errorf("outside the shard: %w", group.ErrInvalid)

// read calls use with a held shard and discards the shard when that finds it
// damaged and a second look agrees.
func (s *Store) read(id group.ID, number uint16, use func(*shardFile) error) error {
	sh, err := s.open(id, number)
	if err != nil {
		return s.suspect(id, number, fmt.Errorf("shard of pack %d of group %v: %w", number, id, err))
	}
	defer sh.close()
	if err = use(sh); err == nil {
		return nil
	}
	if isDamage(err) && !sh.whole() {
		s.discard(id, number, sh.f)
		err = fmt.Errorf("%w: removed: %w", fs.ErrNotExist, err)
	}
	return fmt.Errorf("shard of pack %d of group %v: %w", number, id, err)
}

// suspect looks at all of a shard of which the head could not be read, if err says that
// it is damaged, and returns what was found if that is so, else err.
func (s *Store) suspect(id group.ID, number uint16, err error) error {
	if isDamage(err) {
		if verr := s.Verify(id, number); verr != nil {
			return verr
		}
	}
	return err
}

// Check reads a held shard whole. One that is damaged is removed.
func (s *Store) Check(id group.ID, number uint16) error {
	return s.read(id, number, func(sh *shardFile) error {
		if !sh.whole() {
			return ErrDamaged
		}
		return nil
	})
}

// isDamage reports whether err says that a file is not what was written, or
// that the disk cannot read it.
func isDamage(err error) bool {
	return errors.Is(err, ErrDamaged) || errors.Is(err, erasure.ErrProof) || errors.Is(err, syscall.EIO)
}

// discard takes a damaged shard out of the index and removes its file, before
// anybody can bring another. If the file cannot be removed, as on a disk that the kernel
// has made read-only, it is not said to be held all the same: what is damaged is no
// shard. f is the file that is damaged, nil if there was none: a
// shard that was brought since stays.
func (s *Store) discard(id group.ID, number uint16, f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := s.groups[id]; ok && h.Held.Has(number) && !s.isReplaced(h.file(number), f) {
		_ = s.root.Remove(h.file(number))
		s.drop(h, number)
	}
}

// isReplaced reports whether another file than f is known to have that name.
func (s *Store) isReplaced(name string, f *os.File) bool {
	now, err := s.root.Lstat(name)
	if err != nil || f == nil {
		return err == nil
	}
	was, err := f.Stat()
	return err == nil && !os.SameFile(was, now)
}

// delete removes a shard's file and takes it out of the index; if it cannot be removed,
// the shard stays. The caller holds s.mu.
func (s *Store) delete(h *holding, number uint16) error {
	if !h.Held.Has(number) {
		return nil
	}
	if err := s.root.Remove(h.file(number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.drop(h, number)
	return nil
}

// drop takes a shard out of the index, also one that is being flushed. The caller holds
// s.mu.
func (s *Store) drop(h *holding, number uint16) {
	if a, arriving := h.arriving[number]; arriving {
		a.gone = true
		h.arriving[number] = a
	}
	s.release(h, number)
}
