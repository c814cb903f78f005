package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
)

const (
	magic       = "skepjrn1"
	headerSize  = 16 // magic, first sequence number
	recordSize  = 24 // length, checksum, sequence number, durable sequence number
	segmentSize = 16 << 20
	suffix      = ".journal"
)

// MaxRecord is the largest payload, in segments of the usual size.
const MaxRecord = segmentSize - segmentSize/reserved - headerSize - recordSize

// reserved is the part of a segment, at its end, that only records which free
// space may use, so that files can be deleted on a full disk: one in so many.
const reserved = 16

// Options say where a log lies.
type Options struct {
	// Disk is the filesystem; nil is that of the machine.
	Disk disk.FS
	// SegmentSize is the size of a segment, 0 for the usual 16 MiB. Another
	// one makes a test rotate sooner.
	SegmentSize int64
	// After is up to which record the caller has everything: segments without
	// a later one are not read.
	After uint64
	// Yield gives up room that is held on the disk, for a record that frees
	// space, and reports whether there was any; nil is allowed.
	Yield func() bool
}

var (
	// ErrDamaged says that records which were on the disk cannot be read.
	ErrDamaged = errors.New("journal is damaged")
	// ErrFailed says that an earlier sync failed: what was appended since the
	// last good one may be lost, and nothing more is promised until the
	// journal is opened again.
	ErrFailed = errors.New("journal failed")
	// ErrTooLarge says that a payload exceeds MaxRecord.
	ErrTooLarge = errors.New("journal record is too large")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Journal is an open log. All methods are safe for concurrent use.
type Journal struct {
	fs    disk.FS
	dir   string
	size  int64 // of a segment
	yield func() bool

	mu       sync.Mutex // guards all below; held during writes, not during syncs
	segments []segment  // oldest first; the last one is written to
	file     disk.File  // the last segment
	offset   int64      // where the next record goes
	zeroed   int64      // up to where the segment has been written
	appended int64      // bytes of records, since Open
	next     uint64     // sequence number of the next record
	buf      []byte     // scratch for one record

	syncMu  sync.Mutex // held by the one that syncs; the others wait for it
	durable uint64     // guarded by mu: all records below are on the disk
	failed  error      // guarded by mu: sticky
	loose   []byte     // while opening: records that may not be on the disk
	looseAt int64      // … and where they are
	flushed disk.File  // guarded by mu: the segment that is being synced
	retired disk.File  // guarded by mu: to be closed when that is done
}

type segment struct {
	first uint64
	path  string
}

// Open reads the log in dir, hands the records to replay in order, all or those
// from one at opt.After+1 or before, and opens it for appending. The payload is only valid during the call.
func Open(dir string, opt Options, replay func(seq uint64, payload []byte) error) (*Journal, error) {
	j := &Journal{fs: opt.Disk, dir: dir, size: opt.SegmentSize, next: 1, yield: opt.Yield}
	if j.fs == nil {
		j.fs = disk.Local
	}
	if j.size == 0 {
		j.size = segmentSize
	}
	if err := j.makeDir(); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	segs, err := j.list()
	if err == nil {
		segs, err = j.dropUnborn(segs)
	}
	if err != nil {
		return nil, err
	}
	for i, s := range segs {
		if i == 0 {
			j.next = s.first
		}
		if i+1 < len(segs) && segs[i+1].first <= opt.After+1 {
			j.next = segs[i+1].first // nobody wants its records
			j.segments = append(j.segments, s)
			continue
		}
		if err := j.load(s, i == len(segs)-1, replay); err != nil {
			return nil, err
		}
		j.segments = append(j.segments, s)
	}
	j.durable = j.next // what was read back is synced before anything is promised
	if len(segs) == 0 {
		return j, j.addSegment()
	}
	last := segs[len(segs)-1]
	if j.file, err = j.fs.Open(last.path, os.O_RDWR); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := j.wipeTail(); err != nil {
		_ = j.file.Close()
		return nil, err
	}
	return j, nil
}

// makeDir makes the directory, and sees that it survives power loss before there
// is anything in it.
func (j *Journal) makeDir() error {
	if _, err := j.fs.Stat(j.dir); err == nil {
		return nil
	}
	if err := j.fs.Mkdir(j.dir); err != nil {
		return err
	}
	return j.fs.SyncDir(filepath.Dir(j.dir))
}

// wipeTail zeroes what lies behind the last good record, so that no torn record
// of this run can ever be read as one of the next, and syncs. The records that
// may not be on the disk are written again: a flush that failed in an earlier run
// may have left them in memory, called clean.
func (j *Journal) wipeTail() error {
	if _, err := j.file.WriteAt(j.loose, j.looseAt); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.loose = nil
	st, err := j.file.Stat()
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if n := st.Size - j.offset; n > 0 {
		err = j.file.Allocate(unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, j.offset, n)
		if err != nil {
			if _, err = j.file.WriteAt(make([]byte, n), j.offset); err != nil {
				return fmt.Errorf("journal: wipe torn tail: %w", err)
			}
		}
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.zeroed = j.offset
	return nil
}

func (j *Journal) list() ([]segment, error) {
	names, err := j.fs.Names(j.dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var segs []segment
	for _, n := range names {
		if !strings.HasSuffix(n, suffix) {
			continue
		}
		var first uint64
		if _, err := fmt.Sscanf(n, "%016x"+suffix, &first); err != nil {
			return nil, fmt.Errorf("%w: stray file %s", ErrDamaged, n)
		}
		segs = append(segs, segment{first, filepath.Join(j.dir, n)})
	}
	slices.SortFunc(segs, func(a, b segment) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	return segs, nil
}

// dropUnborn removes a last segment that got no header: the process or the
// power went while it was being made, and nothing was written to it.
func (j *Journal) dropUnborn(segs []segment) ([]segment, error) {
	if len(segs) == 0 {
		return segs, nil
	}
	last := segs[len(segs)-1]
	var head [headerSize]byte
	f, err := j.fs.Open(last.path, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	_, _ = f.ReadAt(head[:], 0) // what cannot be read stays zero
	_ = f.Close()
	if head != [headerSize]byte{} {
		return segs, nil
	}
	if err := j.fs.Remove(last.path); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return segs[:len(segs)-1], nil
}

// load replays one segment; j.next and j.offset end behind its last record.
func (j *Journal) load(s segment, last bool, replay func(uint64, []byte) error) error {
	b, err := disk.ReadFile(j.fs, s.path)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	end, next, err := Scan(b, replay)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(s.path), err)
	}
	if s.first != j.next || (len(b) >= headerSize && next < s.first) {
		return fmt.Errorf("%w: %s does not begin at record %d", ErrDamaged, filepath.Base(s.path), j.next)
	}
	if !last && next == s.first {
		return fmt.Errorf("%w: %s holds no record", ErrDamaged, filepath.Base(s.path))
	}
	j.next, j.offset = next, int64(end)
	if last {
		b = b[:min(end, len(b))]
		from := min(looseFrom(b), len(b))
		j.loose, j.looseAt = b[from:], int64(from)
	}
	return nil
}

// looseFrom returns where the records of a segment begin that none of them says
// to be on the disk.
func looseFrom(b []byte) int {
	first := binary.LittleEndian.Uint64(b[8:])
	starts := []int{headerSize}
	var safe uint64
	for pos, seq := headerSize, first; ; seq++ {
		_, size, durable, ok := parse(b[pos:], seq)
		if !ok {
			break
		}
		pos += size
		starts, safe = append(starts, pos), max(safe, durable)
		if pos >= len(b) {
			break
		}
	}
	if safe <= first {
		return headerSize
	}
	return starts[min(safe-first, uint64(len(starts)-1))]
}

// Scan reads the records of a segment's bytes. It returns the offset behind the
// last good record and the sequence number that would follow. A segment whose
// header is missing holds nothing.
func Scan(b []byte, replay func(seq uint64, payload []byte) error) (end int, next uint64, err error) {
	if len(b) < headerSize || string(b[:8]) != magic {
		return 0, 0, fmt.Errorf("%w: no segment header", ErrDamaged)
	}
	next = binary.LittleEndian.Uint64(b[8:])
	pos := headerSize
	for {
		payload, size, _, ok := parse(b[min(pos, len(b)):], next) // the last one's padding may be cut off
		if !ok {
			break
		}
		if err := replay(next, payload); err != nil {
			return pos, next, err
		}
		pos, next = pos+size, next+1
	}
	// A later record that was written when this one was on the disk proves
	// damage; otherwise this is where the log ends.
	for p := pos; p+recordSize <= len(b); p += 8 {
		seq := binary.LittleEndian.Uint64(b[p+8:])
		if seq <= next || seq > next+uint64(len(b)/recordSize) {
			continue
		}
		if _, _, durable, ok := parse(b[p:], seq); ok && durable > next {
			return pos, next, fmt.Errorf("%w: record %d is unreadable, record %d is not", ErrDamaged, next, seq)
		}
	}
	return pos, next, nil
}

// parse reads the record with this sequence number at the start of b; size is
// what it occupies.
func parse(b []byte, seq uint64) (payload []byte, size int, durable uint64, ok bool) {
	if len(b) < recordSize {
		return nil, 0, 0, false
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n > MaxRecord || recordSize+n > len(b) || binary.LittleEndian.Uint64(b[8:]) != seq {
		return nil, 0, 0, false
	}
	if crc32.Checksum(b[8:recordSize+n], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, 0, 0, false
	}
	return b[recordSize : recordSize+n], occupied(n), binary.LittleEndian.Uint64(b[16:]), true
}

// occupied is the room of a record: records begin at multiples of 8.
func occupied(payload int) int { return (recordSize + payload + 7) &^ 7 }

// Append writes one record; when it returns, the record survives the end of the
// process. With freeing set, the record may use the room that is kept back for
// records which free space. On ENOSPC nothing was appended.
func (j *Journal) Append(payload []byte, freeing bool) (uint64, error) {
	if len(payload) > MaxRecord {
		return 0, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(payload))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != nil {
		return 0, j.failed
	}
	room := j.size
	if !freeing {
		room -= j.size / reserved
	}
	if j.offset+int64(occupied(len(payload))) > room {
		err := j.rotate()
		if freeing && err != nil && j.yield != nil && j.yield() {
			err = j.rotate()
		}
		if err != nil {
			return 0, err
		}
	}
	if err := j.zeroAhead(int64(occupied(len(payload)))); err != nil {
		return 0, err
	}
	b := append(j.buf[:0], make([]byte, recordSize)...)
	b = append(b, payload...)
	binary.LittleEndian.PutUint32(b, uint32(len(payload)))
	binary.LittleEndian.PutUint64(b[8:], j.next)
	binary.LittleEndian.PutUint64(b[16:], j.durable)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	if cap(b) <= 1<<20 {
		j.buf = b
	}
	if _, err := j.file.WriteAt(b, j.offset); err != nil {
		return 0, j.unwritten(err) // the offset stays: the next record overwrites the torn one
	}
	seq := j.next
	j.next++
	j.appended += int64(len(b))
	j.offset += int64(occupied(len(payload)))
	return seq, nil
}

// unwritten is the error of a write that failed. A full disk may have room again
// later; one that fails otherwise is not written to any more.
func (j *Journal) unwritten(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("journal: %w", err)
	}
	j.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	return j.failed
}

// zeroStep is how much of a segment is written at a time before records are: a
// flush of what overwrites it changes none of the local filesystem's metadata,
// which is a third of its time.
const zeroStep = 256 << 10

var zeros [zeroStep]byte

// zeroAhead sees that the segment has been written where the next record goes,
// unless that is a large one, which goes there as well by itself.
func (j *Journal) zeroAhead(size int64) error {
	for end := j.offset + size; j.zeroed < end; {
		if size > zeroStep/4 {
			j.zeroed = end
			break
		}
		n := min(zeroStep-j.zeroed%zeroStep, j.size-j.zeroed)
		if _, err := j.file.WriteAt(zeros[:n], j.zeroed); err != nil {
			return j.unwritten(err)
		}
		j.zeroed += n
	}
	return nil
}

// rotate syncs the full segment and begins a new one.
func (j *Journal) rotate() error {
	if err := j.file.Sync(); err != nil {
		j.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		return j.failed
	}
	old := j.file
	if err := j.addSegment(); err != nil {
		return err
	}
	j.durable = j.next
	if j.flushed == old {
		j.retired = old
	} else {
		_ = old.Close()
	}
	return nil
}

// addSegment creates the segment that begins at j.next. On failure the current
// one stays.
func (j *Journal) addSegment() error {
	path := filepath.Join(j.dir, fmt.Sprintf("%016x%s", j.next, suffix))
	f, err := j.fs.Open(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	head := binary.LittleEndian.AppendUint64([]byte(magic), j.next)
	err = f.Allocate(0, 0, j.size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = f.Truncate(j.size)
	}
	if err == nil {
		_, err = f.WriteAt(head, 0)
	}
	if err == nil {
		if err = errors.Join(f.Sync(), j.fs.SyncDir(j.dir)); err != nil {
			// Power loss may bring it back after it was removed: nothing may be
			// written behind where it begins.
			j.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		}
	}
	if err != nil {
		_ = f.Close()
		_ = j.fs.Remove(path)
		return fmt.Errorf("journal: new segment: %w", err)
	}
	j.file, j.offset, j.zeroed = f, headerSize, headerSize
	j.segments = append(j.segments, segment{j.next, path})
	return nil
}

// Next is the sequence number that the next record will get.
func (j *Journal) Next() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next
}

// Durable reports whether the record seq is on the disk.
func (j *Journal) Durable(seq uint64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return seq < j.durable
}

// Sync returns when all that was appended before the call is on the disk.
func (j *Journal) Sync() error { return j.SyncTo(j.Next() - 1) }

// SyncTo returns when the record seq, and all before it, are on the disk.
// Concurrent calls share one flush: those that wait for one under way find, when
// the next is over, that theirs was in it. After a failure every later call
// fails.
func (j *Journal) SyncTo(seq uint64) error {
	target := seq + 1
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	if j.failed != nil || j.durable >= target {
		defer j.mu.Unlock()
		return j.failed
	}
	upTo := j.next
	file := j.file
	j.flushed = file // rotate leaves it open
	j.mu.Unlock()
	err := file.Datasync()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.flushed = nil
	if j.retired != nil {
		_ = j.retired.Close()
		j.retired = nil
	}
	if err != nil {
		j.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		return j.failed
	}
	j.durable = max(j.durable, upTo)
	return nil
}

// DropBefore deletes the segments whose records are all below seq.
func (j *Journal) DropBefore(seq uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.segments) > 1 && j.segments[1].first <= seq {
		if err := j.fs.Remove(j.segments[0].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("journal: %w", err)
		}
		j.segments = j.segments[1:]
		if err := j.fs.SyncDir(j.dir); err != nil { // in order, or there may be a hole
			return fmt.Errorf("journal: %w", err)
		}
	}
	return nil
}

// First is the number of the first record that is kept, or will be.
func (j *Journal) First() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.segments[0].first
}

// Droppable is how many bytes DropBefore would free.
func (j *Journal) Droppable(seq uint64) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for n+1 < len(j.segments) && j.segments[n+1].first <= seq {
		n++
	}
	return int64(n) * j.size
}

// Size is the room that the log takes on the disk, in bytes.
func (j *Journal) Size() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return int64(len(j.segments)) * j.size
}

// Appended is how many bytes of records were appended since Open.
func (j *Journal) Appended() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.appended
}

// Close syncs and closes the log.
func (j *Journal) Close() error {
	err := j.Sync()
	j.mu.Lock()
	defer j.mu.Unlock()
	if cerr := j.file.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("journal: %w", cerr)
	}
	if j.failed == nil {
		j.failed = fmt.Errorf("%w: closed", ErrFailed)
	}
	return err
}
