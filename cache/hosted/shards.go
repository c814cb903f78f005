package hosted

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/record"
)

// window is how much of a shard is read from the network and written at once.
const window = 512 << 10

var windows = sync.Pool{New: func() any { return new([window]byte) }}

// PutShard stores one shard, which it reads from shard to its end: as many
// bytes as m says. m is a checked manifest and word its signed form. When
// PutShard returns nil, the shard is durable; one that was already there costs
// nothing and is not read. It keeps nothing and returns
//   - fs.ErrNotExist when the store has no lease for the group,
//   - group.ErrInvalid when the pack is dead, the group has shards of another
//     slot or coding, or another manifest of this number is already there,
//   - erasure.ErrProof when the bytes do not have the manifest's root,
//   - syscall.ENOSPC when the disk is full,
//   - else the error of shard or of the disk.
func (s *Store) PutShard(m *group.Manifest, word []byte, slot uint8, shard io.Reader) error {
	h, held, err := s.place(m, slot)
	if err != nil {
		return fmt.Errorf("pack %d of group %v: %w", m.Number, m.Group, err)
	}
	for held {
		if err := s.sameManifest(m, word); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// It died, or turned out to be damaged, since it was looked for.
		if h, held, err = s.place(m, slot); err != nil {
			return fmt.Errorf("pack %d of group %v: %w", m.Number, m.Group, err)
		}
	}
	tmp := s.serial.next()
	length, err := s.receive(tmp, m, word, slot, shard)
	if err == nil {
		err = s.install(h, m, slot, tmp, length)
	}
	if err != nil {
		_ = s.root.Remove(tmp)
		return fmt.Errorf("pack %d of group %v: %w", m.Number, m.Group, err)
	}
	return nil
}

// place finds the group of a pack and checks that the pack may be stored there.
func (s *Store) place(m *group.Manifest, slot uint8) (h *holding, held bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.groups[m.Group]
	if !ok || h.Word == nil {
		return nil, false, fmt.Errorf("no lease: %w", fs.ErrNotExist)
	}
	return h, h.Held.Has(m.Number), h.fits(m, slot)
}

func (h *holding) fits(m *group.Manifest, slot uint8) error {
	switch {
	case h.Dead.Has(m.Number):
		return fmt.Errorf("the pack is dead: %w", group.ErrInvalid)
	case int(slot) >= len(m.Roots) || h.Slot != slot && !h.empty():
		return fmt.Errorf("slot %d, the group is held in slot %d: %w", slot, h.Slot, group.ErrInvalid)
	case h.Class != 0 && (h.Class != m.Class || h.Coding != m.Coding):
		return fmt.Errorf("%v of %v, the group has %v of %v: %w", m.Coding, m.Class, h.Coding, h.Class, group.ErrInvalid)
	}
	return nil
}

func (s *Store) sameManifest(m *group.Manifest, word []byte) error {
	have, err := s.Manifest(m.Group, m.Number)
	if err != nil {
		return err
	}
	if string(have) != string(word) {
		return fmt.Errorf("pack %d of group %v has another manifest: %w", m.Number, m.Group, group.ErrInvalid)
	}
	return nil
}

// receive writes a shard's file under tmp, flushed, and returns its length.
func (s *Store) receive(tmp string, m *group.Manifest, word []byte, slot uint8, shard io.Reader) (int64, error) {
	hd := head{Slot: slot, Manifest: word}
	start, size := hd.size(m.ShardSize()), m.ShardSize()
	length := int64(start + size)
	f, err := s.root.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := allocate(f, length); err != nil {
		return 0, err
	}
	tree := erasure.NewTree(size)
	direct := s.openDirect(tmp, os.O_WRONLY)
	err = copyShard(shardWriter{f, direct}, int64(start), tree, shard, size)
	if direct != nil {
		_ = direct.Close()
	}
	if err != nil {
		return 0, err
	}
	outboard, root, err := tree.Sum()
	if err != nil {
		return 0, err
	}
	if root != m.Roots[slot] {
		return 0, fmt.Errorf("shard %d: %w", slot, erasure.ErrProof)
	}
	hd.outboard = outboard
	if _, err := f.WriteAt(hd.encode(), 0); err != nil {
		return 0, err
	}
	return length, unix.Fdatasync(int(f.Fd()))
}

// allocate reserves the file's blocks, so that a full disk is known before the
// shard is received. Where the file system cannot, writing will tell.
func allocate(f *os.File, length int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, length)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// copyShard reads size bytes, writes them from offset on and hashes them.
func copyShard(w shardWriter, offset int64, tree *erasure.Tree, shard io.Reader, size int) error {
	buf := windows.Get().(*[window]byte)
	defer windows.Put(buf)
	for rest := size; rest > 0; {
		p := buf[:min(rest, window)]
		if _, err := io.ReadFull(shard, p); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if _, err := tree.Write(p); err != nil {
			return err
		}
		if err := w.writeAt(p, offset); err != nil {
			return err
		}
		offset, rest = offset+int64(len(p)), rest-len(p)
	}
	return nil
}

// install moves a received shard to its place and takes it into the index once
// it is durable there. The first shard of a group decides its slot.
func (s *Store) install(h *holding, m *group.Manifest, slot uint8, tmp string, length int64) error {
	if err := s.moveTo(h, slot); err != nil {
		return err
	}
	name := h.dir + "/" + fileName(m.Number, slot, length)
	if err := s.rename(h, m, slot, tmp, name); err != nil {
		return err
	}
	err := h.sync.Flush()
	s.mu.Lock()
	defer s.mu.Unlock()
	h.arriving--
	if h.Held.Has(m.Number) {
		return err // somebody brought the same shard meanwhile
	}
	if err == nil {
		err = s.stillFits(h, m, slot)
	}
	if err != nil {
		_ = s.root.Remove(name)
		return err
	}
	h.Class, h.Coding = m.Class, m.Coding
	h.setLength(m.Number, length)
	s.hold(h, m.Number)
	return nil
}

func (s *Store) rename(h *holding, m *group.Manifest, slot uint8, tmp, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.stillFits(h, m, slot); err != nil {
		return err
	}
	if h.moving || h.Slot != slot {
		return fmt.Errorf("the group moves to another slot: %w", group.ErrInvalid)
	}
	if err := s.root.Rename(tmp, name); err != nil {
		return err
	}
	h.arriving++
	return nil
}

func (s *Store) stillFits(h *holding, m *group.Manifest, slot uint8) error {
	if s.groups[h.ID] != h {
		return fmt.Errorf("the group was dropped: %w", fs.ErrNotExist)
	}
	return h.fits(m, slot)
}

// Manifest returns the signed manifest of a pack whose shard is held, or
// fs.ErrNotExist. It reads no more than that of the shard's file.
func (s *Store) Manifest(id group.ID, number uint16) ([]byte, error) {
	word, err := s.manifest(id, number)
	if err != nil {
		if isDamage(err) {
			s.discard(id, number)
			err = fmt.Errorf("%w: removed: %w", fs.ErrNotExist, err)
		}
		return nil, fmt.Errorf("manifest of pack %d of group %v: %w", number, id, err)
	}
	return word, nil
}

func (s *Store) manifest(id group.ID, number uint16) ([]byte, error) {
	s.mu.Lock()
	h, ok := s.groups[id]
	if !ok || !h.Held.Has(number) {
		s.mu.Unlock()
		return nil, fs.ErrNotExist
	}
	name := h.file(number)
	hd, cached := s.heads.get(id, number)
	s.mu.Unlock()
	if cached {
		return append([]byte(nil), hd.Manifest...), nil
	}
	word, m, err := s.peek(name)
	if err == nil && (m.Group != id || m.Number != number) {
		err = fmt.Errorf("%w: head of another shard", ErrDamaged)
	}
	return word, err
}

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

// cutShort makes the end of a file before its time a damage.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: cut short", ErrDamaged)
	}
	return err
}

// WriteSamples writes the answer to an audit of a shard to w, with errors as
// WriteSlice has them.
func (s *Store) WriteSamples(w io.Writer, id group.ID, number uint16, nonce erasure.Nonce, count int) error {
	return s.read(id, number, func(sh *shardFile) error {
		return erasure.WriteSamples(w, sh, sh.head.outboard, nonce, sh.root, count)
	})
}

var errRange = fmt.Errorf("outside the shard: %w", group.ErrInvalid)

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

// read calls use with a held shard and discards the shard when that finds it
// damaged and a second look agrees.
func (s *Store) read(id group.ID, number uint16, use func(*shardFile) error) error {
	sh, err := s.open(id, number)
	if err == nil {
		defer sh.close()
		err = use(sh)
	}
	if err == nil {
		return nil
	}
	if isDamage(err) && (sh == nil || !sh.whole()) {
		s.discard(id, number)
		err = fmt.Errorf("%w: removed: %w", fs.ErrNotExist, err)
	}
	return fmt.Errorf("shard of pack %d of group %v: %w", number, id, err)
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

// manifest decodes the manifest, whose signature was checked when it came.
func (h *head) manifest() (group.Manifest, error) {
	var m group.Manifest
	if _, err := record.Parse(h.Manifest, group.MaxManifest, &m); err != nil {
		return m, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if !m.Coding.Valid(m.Class) || len(m.Roots) != int(m.Coding.N) || int(h.Slot) >= len(m.Roots) {
		return m, fmt.Errorf("%w: manifest", ErrDamaged)
	}
	return m, nil
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

// discard takes a damaged shard out of the index and removes its file, before
// anybody can bring another.
func (s *Store) discard(id group.ID, number uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := s.groups[id]; ok {
		_ = s.delete(h, number)
	}
}

// delete takes a shard out of the index and removes its file. The caller holds
// s.mu.
func (s *Store) delete(h *holding, number uint16) error {
	file := s.release(h, number)
	if file == "" {
		return nil
	}
	if err := s.root.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// peek reads the manifest at the start of a shard's file.
func (s *Store) peek(name string) (word []byte, m group.Manifest, err error) {
	f, err := s.root.Open(name)
	if err != nil {
		return nil, group.Manifest{}, gone(err)
	}
	defer f.Close()
	b := make([]byte, headFixed+maxHead)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, group.Manifest{}, err
	}
	return peekManifest(b[:n])
}

// gone makes the absence of a file that should be there a damage.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the file is gone", ErrDamaged)
	}
	return err
}
