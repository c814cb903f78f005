package state

import (
	"errors"
	"io"

	lerrors "github.com/syndtr/goleveldb/leveldb/errors"
	"github.com/syndtr/goleveldb/leveldb/journal"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// untorn ends a log of leveldb where it is damaged. Power loss may leave what was
// written to it last, and not what came before: leveldb would pass over that, and the
// number up to which the index is complete would be that of the end. What lies behind
// the damage was not flushed, so that the journal of the tables has it. A damaged log
// with another one behind it is not opened: it was flushed before anything was written
// to that, see files. A manifest ends with its last whole record: leveldb would take half
// of what a torn one says. One that is damaged otherwise is not opened.
type untorn struct{ storage.Storage }

func (u untorn) Open(fd storage.FileDesc) (storage.Reader, error) {
	r, err := u.Storage.Open(fd)
	if err != nil {
		return nil, err
	}
	switch fd.Type {
	case storage.TypeJournal:
		var n int64
		var whole bool
		if n, whole, err = undamaged(r); err == nil && !whole {
			err = u.isLast(fd)
		}
		if err == nil {
			return untornLog{io.NewSectionReader(r, 0, n), r}, nil
		}
	case storage.TypeManifest:
		var n, size int64
		if n, err = checkManifest(r); err == nil {
			size, err = r.Seek(0, io.SeekEnd)
		}
		if err == nil && n < size {
			err = u.joinsLogs(io.NewSectionReader(r, 0, n))
		}
		if err == nil {
			return untornLog{io.NewSectionReader(r, 0, n), r}, nil
		}
		if errors.Is(err, errManifest) {
			err = lerrors.NewErrCorrupted(fd, err)
		}
	}
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// errLog says that there is a later log behind one that is damaged.
var errLog = errors.New("a log of the index is damaged, and not the last")

// isLast fails where something was written to a later log than this one.
func (u untorn) isLast(fd storage.FileDesc) error {
	all, err := u.List(storage.TypeJournal)
	for _, other := range all {
		if err == nil && other.Num > fd.Num {
			err = u.isEmpty(other)
		}
	}
	if errors.Is(err, errLog) {
		err = lerrors.NewErrCorrupted(fd, err)
	}
	return err
}

// isEmpty fails with errLog where something was written to a log.
func (u untorn) isEmpty(fd storage.FileDesc) error {
	r, err := u.Storage.Open(fd)
	if err != nil {
		return err
	}
	n, err := r.Seek(0, io.SeekEnd)
	if err == nil && n > 0 {
		err = errLog
	}
	return errors.Join(err, r.Close())
}

type untornLog struct {
	*io.SectionReader
	io.Closer
}

// undamaged is the length of the beginning of a log in which there is no damage, and
// whether that is all of it.
func undamaged(r io.Reader) (n int64, whole bool, err error) {
	l := &logReader{r: r}
	records := journal.NewReader(l, l, true, true)
	for {
		record, err := records.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, record)
		}
		switch {
		case l.damaged:
			return l.sound, false, nil
		case err == io.EOF:
			return l.read, true, nil
		case err != nil:
			return 0, false, err
		}
	}
}

// logReader counts what is read of a log, and takes note of the first damage.
type logReader struct {
	r       io.Reader
	read    int64
	sound   int64 // before the damage
	damaged bool
}

func (l *logReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.read += int64(n)
	return n, err
}

// Drop implements journal.Dropper: it is told how much of what was read is useless.
func (l *logReader) Drop(err error) {
	var corrupted *journal.ErrCorrupted
	if !l.damaged && errors.As(err, &corrupted) {
		l.damaged, l.sound = true, l.read-int64(corrupted.Size)
	}
}
