package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

type segment struct {
	first uint64
	path  string
}

// reserved is the part of a segment, at its end, that only records which free
// space may use, so that files can be deleted on a full disk: one in so many.
const reserved = 16

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

// makeRoom sees that a record fits into the segment, or begins a new one.
func (j *Journal) makeRoom(takes int64, freeing bool) error {
	room := j.size
	if !freeing {
		room -= j.size / reserved
	}
	if j.offset+takes <= room {
		return nil
	}
	return j.rotate()
}

// Rotate begins a new segment, as one does to drop all before it, and returns the number
// of the first record in it. It does not if the last one is that which an earlier call
// began, with the record begun.
func (j *Journal) Rotate(begun uint64) (first uint64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.failed != nil:
		return 0, j.failed
	case j.segments[len(j.segments)-1].first == begun:
		return begun, nil
	case j.offset > headerSize:
		err = j.withRoom(true, j.rotate)
	}
	return j.next, err
}

// rotate syncs the full segment and begins a new one.
func (j *Journal) rotate() error {
	if j.flush != nil && j.flush.file == j.file {
		<-j.flush.done // needs no lock for it
		if err := j.fail(j.flush.err); err != nil {
			return err
		}
	}
	if err := j.fail(j.file.Sync()); err != nil {
		return err
	}
	old := j.file
	if err := j.addSegment(); err != nil {
		return err
	}
	j.durable = j.next
	if j.flush != nil && j.flush.file == old {
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

// Step is how much room the log takes more when what it has does not do.
func (j *Journal) Step() int64 { return j.size }

// Size is the room that the log takes on the disk, in bytes.
func (j *Journal) Size() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return int64(len(j.segments)) * j.size
}
