package hosted

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"skep/chunker/group"
)

// The store's folders and its lock.
const (
	groupsDir  = "groups"
	recordsDir = "records"
	tmpDir     = "tmp"
	lockFile   = "lock"
	leaseName  = "lease"
)

// ErrInUse says that another process has the store open.
var ErrInUse = errors.New("the store is in use by another process")

// Store is the disk of a holder.
type Store struct {
	root  *os.Root
	lock  *os.File
	offer int64

	groupsSync, recordsSync flusher
	serial                  serial // names of files under tmp

	out  map[group.ID]bool // groups that could not be read: nothing of them is touched
	left []error           // why, and what else was left as it is

	leases [16]sync.Mutex // one change of a group's lease at a time, by the id's first bits; locked before mu

	mu      sync.Mutex // guards the fields below; never held while a body is read or a file is flushed
	groups  map[group.ID]*holding
	records map[group.SlotKey]int64 // length of the file
	used    int64
	heads   headCache
}

// holding is the index entry of one group.
type holding struct {
	group.Holding
	lengths  []uint32 // of the files, by pack number; 0 for none
	arriving map[uint16]arrival
	moving   bool // its lease is being written with another slot
	doubtful bool // a kill may have come before the flush of what its folder shows
	dir      string
	sync     *flusher
}

// arrival is a pack whose shard is in place and not yet counted as held.
type arrival struct {
	word string // its manifest
	puts int    // how many brought it at once
	gone bool   // one was there already, and was deleted since
}

// groupCost is what a group takes on disk beside its shards: its folder and
// its lease.
const groupCost = 2 * page

// empty reports whether the group has no shard, so that its slot may change.
func (h *holding) empty() bool { return h.Held.Count() == 0 && len(h.arriving) == 0 }

func newHolding(s *Store, id group.ID) *holding {
	dir := path.Join(groupsDir, id.String())
	return &holding{Holding: group.Holding{ID: id}, arriving: map[uint16]arrival{}, dir: dir, sync: &flusher{root: s.root, dir: dir}}
}

func (h *holding) length(number uint16) int64 {
	if int(number) < len(h.lengths) {
		return int64(h.lengths[number])
	}
	return 0
}

func (h *holding) setLength(number uint16, n int64) {
	for len(h.lengths) <= int(number) {
		h.lengths = append(h.lengths, 0)
	}
	h.lengths[number] = uint32(n)
}

func (h *holding) file(number uint16) string {
	return path.Join(h.dir, fileName(number, h.Slot, h.length(number)))
}

// Open opens the store in dir, or makes an empty one. It offers offer bytes to
// others, counted as the files take them on disk, or what the disk has room for; it
// returns ErrInUse when another process has it open. What is damaged is removed; what
// the disk cannot read now is left as it is, for the next time.
func Open(dir string, offer int64) (_ *Store, err error) {
	if offer < 0 {
		return nil, fmt.Errorf("offer of %d bytes", offer)
	}
	if err := makeFolder(dir); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		root: root, offer: offer,
		out: map[group.ID]bool{}, groups: map[group.ID]*holding{}, records: map[group.SlotKey]int64{},
		groupsSync:  flusher{root: root, dir: groupsDir},
		recordsSync: flusher{root: root, dir: recordsDir},
	}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if err := s.acquire(); err != nil {
		return nil, fmt.Errorf("hosted shards in %s: %w", dir, err)
	}
	if err := s.scan(); err != nil {
		return nil, fmt.Errorf("hosted shards in %s: %w", dir, err)
	}
	return s, nil
}

// LeftOut returns what the disk could not read when the store was opened. A group
// among it counts as not held, and takes nothing.
func (s *Store) LeftOut() []error { return s.left }

// makeFolder makes the store's own folder, durable in the one that it lies in.
func makeFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(filepath.Clean(dir)))
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
}

// Close lets another process open the store. No other call may be in progress.
func (s *Store) Close() error {
	var err error
	if s.lock != nil {
		err = s.lock.Close()
	}
	return errors.Join(err, s.root.Close())
}

// Room returns how many bytes the store offers, as far as the disk has room for
// them, and how many are taken. One whose folder was removed, or whose disk was
// taken away, since Open has no more room.
func (s *Store) Room() (offered, used int64) {
	free, err := s.diskFree()
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, fs.ErrNotExist) {
		return s.used, s.used
	}
	if err != nil {
		return s.offer, s.used
	}
	return min(s.offer, s.used+free), s.used
}

// diskFree is how much of the disk is free, less what is left to others.
func (s *Store) diskFree() (int64, error) {
	var st unix.Statfs_t
	if _, err := s.root.Stat(tmpDir); err != nil {
		return 0, err
	}
	if err := unix.Fstatfs(int(s.lock.Fd()), &st); err != nil {
		return 0, fmt.Errorf("free space: %w", err)
	}
	block := max(1, st.Bsize) // some file systems do not say
	bytes := func(blocks uint64) int64 { return int64(min(blocks, 1<<62/uint64(block))) * block }
	return max(0, bytes(st.Bavail)-min(bytes(st.Blocks)/keepFree, mostKeptFree)), nil
}

const (
	// keepFree is which part of a disk is left free, mostKeptFree how much of
	// it at most.
	keepFree     = 64
	mostKeptFree = 512 << 20
)

func (s *Store) acquire() error {
	f, err := s.root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	s.lock = f
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return nil
}

// scan makes the index from the files.
func (s *Store) scan() error {
	if err := s.root.RemoveAll(tmpDir); err != nil {
		return err
	}
	for _, dir := range []string{groupsDir, recordsDir, tmpDir} {
		if err := s.root.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := (&flusher{root: s.root, dir: "."}).Flush(); err != nil {
		return err
	}
	if err := s.scanRecords(); err != nil {
		return err
	}
	dirs, err := s.list(groupsDir)
	if err != nil {
		return err
	}
	for _, e := range dirs {
		var id group.ID
		if n, err := hex.Decode(id[:], []byte(e.Name())); len(e.Name()) != 2*len(id) || err != nil || n != len(id) || !e.IsDir() {
			continue // not ours
		}
		err := s.scanGroup(id)
		if isUnreadable(err) {
			s.out[id] = true
			s.left = append(s.left, fmt.Errorf("group %v: %w", id, err))
		} else if err != nil {
			return fmt.Errorf("group %v: %w", id, err)
		}
	}
	return nil
}

func (s *Store) list(dir string) ([]fs.DirEntry, error) {
	f, err := s.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

func (s *Store) scanGroup(id group.ID) error {
	h := newHolding(s, id)
	lost := s.readLease(h)
	if lost != nil && !isUnreadable(lost) {
		return lost
	}
	entries, err := s.list(h.dir)
	if err != nil {
		return err
	}
	strays, err := s.scanShards(h, entries)
	if err != nil {
		return err
	}
	if h.Held.Count() == 0 && lost != nil {
		return lost
	}
	if h.Word == nil && h.Held.Count() == 0 {
		return s.root.RemoveAll(h.dir)
	}
	if lost == nil { // else who knows what belongs there
		s.clear(h.dir, strays)
	}
	h.doubtful = true
	s.groups[id] = h
	s.used += groupCost
	return nil
}

// clear removes files of a folder that do not belong there.
func (s *Store) clear(dir string, names []string) {
	for _, name := range names {
		if err := s.root.RemoveAll(path.Join(dir, name)); err != nil {
			s.left = append(s.left, err)
		}
	}
}

// scanShards takes the files of a group into the index, and returns the names of those
// that do not belong there. Any head tells the coding of all, so that those which cannot
// be read are looked at once more when one was.
func (s *Store) scanShards(h *holding, files []fs.DirEntry) (strays []string, err error) {
	for range 2 {
		var unread []fs.DirEntry
		for _, e := range files {
			if e.Name() == leaseName {
				continue
			}
			ours, serr := s.scanShard(h, e)
			switch {
			case isUnreadable(serr):
				unread, err = append(unread, e), serr
			case serr != nil:
				return nil, serr
			case !ours:
				strays = append(strays, e.Name())
			}
		}
		files = unread
	}
	if len(files) == 0 {
		return strays, nil
	}
	if h.Held.Count() == 0 {
		return nil, err
	}
	s.left = append(s.left, fmt.Errorf("%d files of group %v: %w", len(files), h.ID, err))
	return strays, nil
}

// readLease fills in what the lease's file says. Without a whole one, the
// group has its shards, but no lease until somebody brings it.
func (s *Store) readLease(h *holding) error {
	b, err := s.root.ReadFile(path.Join(h.dir, leaseName))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err // the lease may be well
	}
	f, l, err := decodeLease(b, h.ID)
	if err != nil {
		return nil
	}
	h.Slot, h.Dead, h.Last, h.From = f.Slot, f.Dead, f.Last, f.From
	h.Lease, h.Word = l, f.Lease
	return nil
}

// scanShard takes one file into the index and reports whether it belongs there.
func (s *Store) scanShard(h *holding, e fs.DirEntry) (bool, error) {
	number, slot, length, ok := parseFileName(e.Name())
	if !ok || h.Held.Has(number) || h.Dead.Has(number) {
		return false, nil
	}
	if h.Word == nil && h.Held.Count() == 0 {
		h.Slot = slot
	}
	if slot != h.Slot {
		return false, nil
	}
	fi, err := e.Info()
	if err != nil {
		return false, err
	}
	if !fi.Mode().IsRegular() || fi.Size() != length {
		return false, nil
	}
	if h.Class == 0 {
		if ok, err := s.learnCoding(h, number, e.Name()); !ok {
			return false, err
		}
	}
	if (length-int64(h.ShardSize()))%page != 0 || length <= int64(h.ShardSize()) {
		return false, nil
	}
	h.setLength(number, length)
	s.hold(h, number)
	return true, nil
}

// isUnreadable reports whether a disk failed. What it failed to read may be well.
func isUnreadable(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EBADMSG)
}

// learnCoding reads class and coding of a group from the first of its files,
// and reports whether that is one.
func (s *Store) learnCoding(h *holding, number uint16, name string) (bool, error) {
	_, m, err := s.peek(path.Join(h.dir, name))
	if isDamage(err) && !isUnreadable(err) || err == nil && (m.Group != h.ID || m.Number != number) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	h.Class, h.Coding = m.Class, m.Coding
	return true, nil
}

// hold counts a shard whose length is set. The caller has the index to itself.
func (s *Store) hold(h *holding, number uint16) {
	h.Held.Add(number)
	s.used += h.length(number)
}

// release takes a shard out of the index and returns its file, or "".
func (s *Store) release(h *holding, number uint16) string {
	if !h.Held.Has(number) {
		return ""
	}
	file := h.file(number)
	h.Held.Remove(number)
	s.used -= h.length(number)
	h.setLength(number, 0)
	s.heads.remove(h.ID, number)
	return file
}
