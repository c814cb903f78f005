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
			return errors.Join(err, s.settle(h))
		}
		// It died, or turned out to be damaged, since it was looked for.
		if h, held, err = s.place(m, slot); err != nil {
			return fmt.Errorf("pack %d of group %v: %w", m.Number, m.Group, err)
		}
	}
	tmp := s.serial.next()
	length, err := s.receive(tmp, m, word, slot, shard)
	if err == nil {
		err = s.install(h, m, word, slot, tmp, length)
	}
	if err != nil {
		_ = s.root.Remove(tmp)
		if errors.Is(err, errHeld) {
			err = s.sameManifest(m, word)
			if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if _, _, dead := s.place(m, slot); dead != nil { // it died since
				err = dead
			}
		}
		return fmt.Errorf("pack %d of group %v: %w", m.Number, m.Group, err)
	}
	return nil
}

// Settle makes sure that the shards of a group which Holding tells of are there after a
// power cut. All but those that a process left which was killed are so anyway.
func (s *Store) Settle(id group.ID) error {
	h, ok := s.lookup(id)
	if !ok {
		return nil
	}
	return s.settle(h)
}

// settle flushes the folder of a group once since the store was opened: a process that
// was killed may have put shards there and not come to that.
func (s *Store) settle(h *holding) error {
	s.mu.Lock()
	doubtful := h.doubtful
	s.mu.Unlock()
	if !doubtful {
		return nil
	}
	if err := h.sync.Flush(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h.doubtful = false
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

// errHeld says that somebody else has brought a shard of the pack meanwhile.
var errHeld = errors.New("the shard is held already")

// install moves a received shard to its place and takes it into the index once
// it is durable there. The first shard of a group decides its slot.
func (s *Store) install(h *holding, m *group.Manifest, word []byte, slot uint8, tmp string, length int64) error {
	name := h.dir + "/" + fileName(m.Number, slot, length)
	err := s.rename(h, m, word, slot, tmp, name)
	if errors.Is(err, errElsewhere) {
		err = s.move(h, slot, func() error { return s.rename(h, m, word, slot, tmp, name) })
	}
	if err != nil {
		return err
	}
	err = h.sync.Flush()
	s.mu.Lock()
	defer s.mu.Unlock()
	gone, last := h.arrived(m.Number)
	if h.Held.Has(m.Number) {
		return err // somebody brought the same shard at once
	}
	if err == nil && gone {
		err = fmt.Errorf("it was deleted as it arrived: %w", fs.ErrNotExist)
	}
	if err == nil {
		err = s.stillFits(h, m, slot)
	}
	if err != nil {
		if last && s.groups[h.ID] == h {
			_ = s.root.Remove(name)
		}
		return err
	}
	h.Class, h.Coding = m.Class, m.Coding
	h.setLength(m.Number, length)
	s.hold(h, m.Number)
	return nil
}

// errElsewhere says that a group without shards is in another slot, or is being moved.
var errElsewhere = fmt.Errorf("the group is in another slot: %w", group.ErrInvalid)

// rename moves a shard to its place, if it is not held, nor another one arriving under
// its number.
func (s *Store) rename(h *holding, m *group.Manifest, word []byte, slot uint8, tmp, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.stillFits(h, m, slot); err != nil {
		return err
	}
	a, arriving := h.arriving[m.Number]
	switch {
	case h.moving || h.Slot != slot:
		return errElsewhere
	case h.Held.Has(m.Number):
		return errHeld
	case arriving && a.word != string(word):
		return fmt.Errorf("one with another manifest arrives: %w", group.ErrInvalid)
	}
	if err := s.root.Rename(tmp, name); err != nil {
		return err
	}
	h.arriving[m.Number] = arrival{string(word), a.puts + 1, a.gone}
	return nil
}

// arrived ends one put of a pack, and reports whether the shard was deleted meanwhile,
// and whether this was the last put of those at once. The caller holds s.mu.
func (h *holding) arrived(number uint16) (gone, last bool) {
	a := h.arriving[number]
	if a.puts--; a.puts > 0 {
		h.arriving[number] = a
		return a.gone, false
	}
	delete(h.arriving, number)
	return a.gone, true
}

func (s *Store) stillFits(h *holding, m *group.Manifest, slot uint8) error {
	if s.groups[h.ID] != h {
		return fmt.Errorf("the group was dropped: %w", fs.ErrNotExist)
	}
	return h.fits(m, slot)
}
