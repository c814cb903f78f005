package hosted

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"skep/chunker/erasure"
	"skep/chunker/group"
)

// shardFile is an open file of a shard. As an io.ReaderAt it reads the shard.
type shardFile struct {
	name   string
	f      *os.File
	direct *os.File // the same, past the page cache; nil where that is not wanted
	start  int64
	size   int
	head   head
	root   erasure.Root
}

// ReadAt implements io.ReaderAt on the shard's bytes.
func (sh *shardFile) ReadAt(p []byte, off int64) (int, error) {
	if sh.direct != nil && isAligned(p, sh.start+off) {
		if n, err := sh.direct.ReadAt(p, sh.start+off); !errors.Is(err, unix.EINVAL) {
			return n, err
		}
	}
	return sh.f.ReadAt(p, sh.start+off)
}

func (sh *shardFile) close() {
	_ = sh.f.Close()
	if sh.direct != nil {
		_ = sh.direct.Close()
	}
}

func (s *Store) open(id group.ID, number uint16) (*shardFile, error) {
	s.mu.Lock()
	h, ok := s.groups[id]
	if !ok || !h.Held.Has(number) {
		s.mu.Unlock()
		return nil, fs.ErrNotExist
	}
	name, slot, size := h.file(number), h.Slot, h.ShardSize()
	start := h.length(number) - int64(size)
	hd, cached := s.heads.get(id, number)
	s.mu.Unlock()

	f, err := s.root.Open(name)
	if err != nil {
		return nil, gone(err)
	}
	sh := &shardFile{name: name, f: f, start: start, size: size, head: hd}
	if cached {
		err = sh.learnRoot()
	} else {
		err = sh.readHead(id, number, slot)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	if !cached {
		s.keepHead(id, number, sh.head)
	}
	return sh, nil
}

func (s *Store) keepHead(id group.ID, number uint16, hd head) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := s.groups[id]; ok && h.Held.Has(number) {
		s.heads.add(id, number, hd)
	}
}

func (sh *shardFile) readHead(id group.ID, number uint16, slot uint8) error {
	b := make([]byte, sh.start)
	if _, err := sh.f.ReadAt(b, 0); err != nil {
		return cutShort(err)
	}
	return sh.takeHead(b, id, number, slot)
}

// takeHead decodes the head, which shares memory with b, and checks that it is
// the one of this shard.
func (sh *shardFile) takeHead(b []byte, id group.ID, number uint16, slot uint8) error {
	hd, err := decodeHead(b, sh.size)
	if err != nil {
		return err
	}
	m, err := hd.manifest()
	if err != nil {
		return err
	}
	if m.Group != id || m.Number != number || hd.Slot != slot {
		return fmt.Errorf("%w: head of another shard", ErrDamaged)
	}
	sh.head, sh.root = hd, m.Roots[slot]
	return nil
}

func (sh *shardFile) learnRoot() error {
	m, err := sh.head.manifest()
	if err != nil {
		return err
	}
	sh.root = m.Roots[sh.head.Slot]
	return nil
}

// whole reads the shard again and reports whether it has its root.
func (sh *shardFile) whole() bool {
	tree := erasure.NewTree(sh.size)
	if _, err := io.Copy(tree, io.NewSectionReader(sh, 0, int64(sh.size))); err != nil {
		return false
	}
	outboard, root, err := tree.Sum()
	return err == nil && root == sh.root && string(outboard) == string(sh.head.outboard)
}

// cutShort makes the end of a file before its time a damage.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: cut short", ErrDamaged)
	}
	return err
}

// gone makes the absence of a file that should be there a damage.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the file is gone", ErrDamaged)
	}
	return err
}
