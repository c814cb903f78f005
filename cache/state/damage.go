package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	lerrors "github.com/syndtr/goleveldb/leveldb/errors"
	"golang.org/x/sys/unix"
)

// ErrDamaged says that the index was found damaged while it was open. What it
// holds is not lost: the next Open makes it anew. Until then nothing is applied
// any more, and what cannot be read fails.
var ErrDamaged = errors.New("the local index is damaged")

// damage is what was found to be wrong with the index since it was opened.
type damage struct {
	found atomic.Pointer[error] // the first
	tell  func(error)           // is called with it
}

// err is what was found; nil if all is well.
func (d *damage) err() error {
	if e := d.found.Load(); e != nil {
		return *e
	}
	return nil
}

// Damage says what is wrong with the index; nil if nothing was found. The error
// is ErrDamaged.
func (s *Store) Damage() error { return s.damage.err() }

// indexError makes an error of leveldb one of ours. Damage is noted, so that the
// next Open does not trust the index, even if what it looks at first is whole.
func (s *Store) indexError(err error) error {
	if err == nil {
		return nil
	}
	if !lerrors.IsCorrupted(err) && !errors.Is(err, fs.ErrNotExist) && !isUnreadable(err) {
		return fmt.Errorf("index: %w", err)
	}
	err = fmt.Errorf("%w: %s: %w", ErrDamaged, s.indexDir(), err)
	if s.damage.found.CompareAndSwap(nil, &err) {
		s.flushes.Go(func() {
			marked := s.markDamaged()
			if s.damage.tell != nil {
				s.damage.tell(errors.Join(err, marked))
			}
		})
	}
	return err
}

// isUnreadable reports whether the disk could not read a file of the index. Leveldb
// would try it again for ever, at each start.
func isUnreadable(err error) bool {
	var at *fs.PathError
	return errors.As(err, &at) && (at.Op == "open" || at.Op == "read") && errors.Is(at, unix.EIO)
}

// damagedMark is the name of a file that stands as long as the index beside it is
// not to be trusted.
func (s *Store) damagedMark() string { return filepath.Join(s.dir, "damaged") }

func (s *Store) markDamaged() error {
	f, err := s.opt.Disk.Open(s.damagedMark(), os.O_RDWR|os.O_CREATE)
	if err == nil {
		err = errors.Join(f.Close(), s.opt.Disk.SyncDir(s.dir))
	}
	return err
}

// removeIndex removes the index. If that is broken off, no rest of it is opened: what is
// left can look whole.
func (s *Store) removeIndex() error {
	err := s.markDamaged()
	if isFull(err) && s.ballast.yield() {
		err = s.markDamaged()
	}
	if err != nil {
		return err
	}
	return s.removeDamaged()
}

// removeDamaged removes an index that an earlier run found damaged.
func (s *Store) removeDamaged() error {
	_, err := s.opt.Disk.Stat(s.damagedMark())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = s.opt.Disk.RemoveAll(s.indexDir())
	}
	if err == nil {
		err = s.opt.Disk.SyncDir(s.dir)
	}
	if err == nil {
		err = s.opt.Disk.Remove(s.damagedMark())
	}
	return err
}
