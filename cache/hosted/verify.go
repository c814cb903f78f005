package hosted

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"skep/chunker/erasure"
	"skep/chunker/group"
)

// Verify reads a shard from the disk, past the page cache, and compares every
// byte of its file with the root in its manifest. A shard that twice is not
// what was stored is removed and gives fs.ErrNotExist, as one that is not held
// does.
func (s *Store) Verify(id group.ID, number uint16) error {
	f, err := s.verify(id, number)
	if isDamage(err) {
		_ = f.Close()
		f, err = s.verify(id, number) // a fault on the way from the disk is no damage
	}
	defer f.Close()
	if isDamage(err) {
		s.discard(id, number, f)
		err = fmt.Errorf("%w: removed: %w", fs.ErrNotExist, err)
	}
	if err != nil {
		return fmt.Errorf("shard of pack %d of group %v: %w", number, id, err)
	}
	return nil
}

// verify reads a shard once, and returns its file, or nil if that was not found.
func (s *Store) verify(id group.ID, number uint16) (*os.File, error) {
	s.mu.Lock()
	h, ok := s.groups[id]
	if !ok || !h.Held.Has(number) {
		s.mu.Unlock()
		return nil, fs.ErrNotExist
	}
	name, slot, size := h.file(number), h.Slot, h.ShardSize()
	start := h.length(number) - int64(size)
	s.mu.Unlock()

	f, err := s.openUncached(name)
	if err != nil {
		return nil, gone(err)
	}
	sh := &shardFile{f: f, start: start, size: size}
	buf := windows.Get().(*[window]byte)
	defer windows.Put(buf)
	if err := sh.verifyHead(buf[:], id, number, slot); err != nil {
		return f, err
	}
	return f, sh.verifyBody(buf[:])
}

// openUncached opens a file for reading past the page cache, or through it
// where that cannot be.
func (s *Store) openUncached(name string) (*os.File, error) {
	if f := s.openDirect(name, os.O_RDONLY); f != nil {
		return f, nil
	}
	return s.root.Open(name)
}

// verifyHead reads and checks the head into the beginning of buf.
func (sh *shardFile) verifyHead(buf []byte, id group.ID, number uint16, slot uint8) error {
	if sh.start > int64(len(buf)) {
		return fmt.Errorf("%w: head of %d bytes", ErrDamaged, sh.start)
	}
	if err := sh.fill(buf[:sh.start], 0); err != nil {
		return err
	}
	return sh.takeHead(bytes.Clone(buf[:sh.start]), id, number, slot)
}

// verifyBody reads the shard, a part of buf at a time, and compares its tree.
func (sh *shardFile) verifyBody(buf []byte) error {
	tree := erasure.NewTree(sh.size)
	for at := 0; at < sh.size; at += len(buf) {
		p := buf[:min(len(buf), sh.size-at)]
		if err := sh.fill(p, sh.start+int64(at)); err != nil {
			return err
		}
		if _, err := tree.Write(p); err != nil {
			return err
		}
	}
	outboard, root, err := tree.Sum()
	if err == nil && (root != sh.root || !bytes.Equal(outboard, sh.head.outboard)) {
		err = fmt.Errorf("%w: the shard", ErrDamaged)
	}
	return err
}

// fill reads len(p) bytes at an offset of the file. It asks for whole pages,
// as reading past the page cache has to: p has room for them.
func (sh *shardFile) fill(p []byte, off int64) error {
	whole := (len(p) + page - 1) / page * page
	n, err := sh.f.ReadAt(p[:whole:whole], off)
	if n >= len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, unix.EINVAL) && n > 0 {
		return fmt.Errorf("%w: cut short", ErrDamaged)
	}
	return err
}

// VerifyLease compares the lease of a group on disk with the one in memory, and
// writes it again when it is not the same: the memory of what is dead must not
// rot. Where there is none in memory, it is read.
func (s *Store) VerifyLease(id group.ID) error {
	turn := s.leaseTurn(id)
	turn.Lock()
	defer turn.Unlock()
	of, ok := s.lookup(id)
	if !ok {
		return nil
	}
	h, _ := s.Holding(id)
	if h.Word == nil {
		return s.recall(of)
	}
	b, err := s.root.ReadFile(path.Join(of.dir, leaseName))
	if err == nil && bytes.Equal(b, encodeLease(&h)) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !isDamage(err) {
		return fmt.Errorf("lease of group %v: %w", id, err)
	}
	if err := s.writeLease(of, h, true); err != nil {
		return fmt.Errorf("lease of group %v: %w", id, err)
	}
	return nil
}
