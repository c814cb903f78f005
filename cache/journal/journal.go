package journal

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
)

// Options say where a log lies.
type Options struct {
	// Disk is the filesystem; nil is that of the machine.
	Disk disk.FS
	// SegmentSize is the size of a segment, 0 for the usual 16 MiB. Another
	// one makes a test rotate sooner.
	SegmentSize int64
	// After is up to which record the caller has everything, that was on the
	// disk: segments without a later one are not read, but it has to be there.
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
	tail    []byte     // while opening: the last segment
	loose   int        // … and from where its records may not be on the disk
	flush   *flush     // guarded by mu: under way without it; nil: none
	retired disk.File  // guarded by mu: to be closed when that is done
}

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
	if err := j.withRoom(freeing, func() error { return j.put(payload, freeing) }); err != nil {
		return 0, err
	}
	return j.next - 1, nil
}

// put writes the next record.
func (j *Journal) put(payload []byte, freeing bool) error {
	takes := int64(occupied(len(payload)))
	if err := j.makeRoom(takes, freeing); err != nil {
		return err
	}
	if err := j.zeroAhead(takes); err != nil {
		return err
	}
	b := appendRecord(j.buf[:0], j.next, j.durable, payload)
	if cap(b) <= 1<<20 {
		j.buf = b
	}
	if _, err := j.file.WriteAt(b, j.offset); err != nil {
		return j.unwritten(err) // the offset stays: the next record overwrites the torn one
	}
	j.next++
	j.appended += int64(len(b))
	j.offset += takes
	return nil
}

// withRoom does something, and if the disk is full, and it frees space, once more in
// room that is held for that. On some disks writing again what is there takes new room.
func (j *Journal) withRoom(freeing bool, do func() error) error {
	err := do()
	if freeing && isFull(err) && j.yield != nil && j.yield() {
		err = do()
	}
	return err
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// unwritten is the error of a write that failed. A full disk may have room again
// later; one that fails otherwise is not written to any more.
func (j *Journal) unwritten(err error) error {
	if isFull(err) {
		return fmt.Errorf("journal: %w", err)
	}
	j.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	return j.failed
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
	f := &flush{file: file, done: make(chan struct{})}
	j.flush = f // rotate leaves the file open
	j.mu.Unlock()
	f.err = file.Datasync()
	close(f.done)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.flush = nil
	if j.retired != nil {
		_ = j.retired.Close()
		j.retired = nil
	}
	if err := j.fail(f.err); err != nil {
		return err
	}
	j.durable = max(j.durable, upTo)
	return nil
}

// flush is one flush of a segment that goes on without mu. The kernel tells of what it
// could not write once for each open file: so there is never another one of the same
// segment beside it.
type flush struct {
	file disk.File
	done chan struct{}
	err  error // to be read when it is done
}

// fail takes note of a flush that ended with err, and returns why the journal has
// failed, if it has; mu is held.
func (j *Journal) fail(err error) error {
	if err != nil && j.failed == nil {
		j.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return j.failed
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
