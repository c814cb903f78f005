package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
)

// Open reads the log in dir, hands the records to replay in order, all or those
// from one at opt.After+1 or before, and opens it for appending. What replay is
// called with is on the disk. The payload is only valid during the call. A log that
// ends before opt.After is damaged.
func Open(dir string, opt Options, replay func(seq uint64, payload []byte) error) (*Journal, error) {
	j := &Journal{fs: opt.Disk, dir: dir, size: opt.SegmentSize, next: 1, yield: opt.Yield}
	if j.fs == nil {
		j.fs = disk.Local
	}
	if j.size == 0 {
		j.size = segmentSize
	}
	unborn, err := j.loadAll(opt.After, opt.After, replay)
	if err != nil {
		return nil, err
	}
	if err := j.makeDir(); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if unborn != "" {
		if err := j.fs.Remove(unborn); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
	}
	j.durable = j.next // what was read back is synced before anything is promised
	if len(j.segments) == 0 {
		return j, j.withRoom(true, j.addSegment)
	}
	last := j.segments[len(j.segments)-1]
	if j.file, err = j.fs.Open(last.path, os.O_RDWR); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err = j.withRoom(true, j.wipeTail); err == nil {
		err = j.replayTail(replay)
	}
	if err != nil {
		_ = j.file.Close()
		return nil, err
	}
	return j, nil
}

// Check reads all of the log in dir, which nobody has open, and changes nothing. It
// fails with ErrDamaged where Open would that is told as much in opt.After.
func Check(dir string, after uint64) error {
	j := &Journal{fs: disk.Local, dir: dir, next: 1}
	_, err := j.loadAll(0, after, func(uint64, []byte) error { return nil })
	return err
}

// loadAll replays the segments that have a record after the one at after, but for the
// last, which it only reads, and sees that the log goes up to known. It returns the
// path of a last segment that was not born, if there is one.
func (j *Journal) loadAll(after, known uint64, replay func(uint64, []byte) error) (unborn string, err error) {
	segs, err := j.list()
	if err != nil {
		return "", err
	}
	if n := len(segs); n > 0 {
		born, err := j.isBorn(segs[n-1])
		if err != nil {
			return "", err
		}
		if !born {
			unborn, segs = segs[n-1].path, segs[:n-1]
		}
	}
	if err := j.replayAll(segs, after, replay); err != nil {
		return "", err
	}
	if j.next <= known {
		return "", fmt.Errorf("%w: it ends before record %d, and had %d", ErrDamaged, j.next, known)
	}
	return unborn, nil
}

// replayAll replays the segments, but for those of which nobody wants a record.
func (j *Journal) replayAll(segs []segment, after uint64, replay func(uint64, []byte) error) error {
	for i, s := range segs {
		if i == 0 {
			j.next = s.first
		}
		if i+1 < len(segs) && segs[i+1].first <= after+1 {
			j.next = segs[i+1].first
		} else if err := j.load(s, i == len(segs)-1, replay); err != nil {
			return err
		}
		j.segments = append(j.segments, s)
	}
	return nil
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

func (j *Journal) list() ([]segment, error) {
	names, err := j.fs.Names(j.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
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

// isBorn reports whether anything was written to a segment. Where nothing was, the
// process or the power went while it was being made. Zeros in place of the header
// alone are damage.
func (j *Journal) isBorn(s segment) (bool, error) {
	f, err := j.fs.Open(s.path, os.O_RDONLY)
	if err != nil {
		return false, fmt.Errorf("journal: %w", err)
	}
	defer f.Close()
	b := make([]byte, 4<<10) // mostly the header is there
	for off := int64(0); ; {
		n, err := f.ReadAt(b, off)
		if len(bytes.Trim(b[:n], "\x00")) > 0 {
			return true, nil
		}
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("journal: %w", err)
		}
		if off += int64(n); len(b) < zeroStep {
			b = make([]byte, zeroStep)
		}
	}
}

// load replays one segment, which was flushed before there was a later one; the last
// may not be on the disk, and is kept for replayTail. j.next and j.offset end behind
// its last record.
func (j *Journal) load(s segment, last bool, replay func(uint64, []byte) error) error {
	b, err := disk.ReadFile(j.fs, s.path)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if last {
		replay = func(uint64, []byte) error { return nil }
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
		j.tail = b[:min(end, len(b))]
		j.loose = min(looseFrom(j.tail), len(j.tail))
	}
	return nil
}

// replayTail replays the last segment, when it is on the disk.
func (j *Journal) replayTail(replay func(uint64, []byte) error) error {
	_, _, err := Scan(j.tail, replay)
	j.tail = nil
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(j.segments[len(j.segments)-1].path), err)
	}
	return nil
}

// wipeTail zeroes what lies behind the last good record, so that no torn record
// of this run can ever be read as one of the next, and syncs. The records that
// may not be on the disk are written again: a flush that failed in an earlier run
// may have left them in memory, called clean. It can be done again.
func (j *Journal) wipeTail() error {
	if _, err := j.file.WriteAt(j.tail[j.loose:], int64(j.loose)); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
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
