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
// the damage was not flushed, so that the journal of the tables has it. A damaged
// manifest is not opened: see checkManifest.
type untorn struct{ storage.Storage }

func (u untorn) Open(fd storage.FileDesc) (storage.Reader, error) {
	r, err := u.Storage.Open(fd)
	if err != nil {
		return nil, err
	}
	switch fd.Type {
	case storage.TypeJournal:
		var n int64
		if n, err = undamaged(r); err == nil {
			return untornLog{io.NewSectionReader(r, 0, n), r}, nil
		}
	case storage.TypeManifest:
		if err = checkManifest(r); err == nil {
			_, err = r.Seek(0, io.SeekStart)
		}
		if errors.Is(err, errManifest) {
			err = lerrors.NewErrCorrupted(fd, err)
		}
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

type untornLog struct {
	*io.SectionReader
	io.Closer
}

// undamaged is the length of the beginning of a log in which there is no damage.
func undamaged(r io.Reader) (int64, error) {
	l := &logReader{r: r}
	records := journal.NewReader(l, l, true, true)
	for {
		record, err := records.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, record)
		}
		switch {
		case l.damaged:
			return l.sound, nil
		case err == io.EOF:
			return l.read, nil
		case err != nil:
			return 0, err
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
