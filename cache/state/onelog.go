package state

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// oneLog shows the logs of leveldb as one, that has the name of the last: where it
// only reads, it fails at the second. It passes over batches that its tables have.
type oneLog struct{ storage.Storage }

func (o oneLog) List(kind storage.FileType) ([]storage.FileDesc, error) {
	all, err := o.Storage.List(kind)
	if err != nil {
		return nil, err
	}
	logs, rest := logsFirst(all)
	if len(logs) > 1 {
		logs = logs[len(logs)-1:]
	}
	return append(logs, rest...), nil
}

// logsFirst parts the logs, in order, from other files.
func logsFirst(all []storage.FileDesc) (logs, rest []storage.FileDesc) {
	for _, fd := range all {
		if fd.Type == storage.TypeJournal {
			logs = append(logs, fd)
		} else {
			rest = append(rest, fd)
		}
	}
	slices.SortFunc(logs, func(a, b storage.FileDesc) int { return int(a.Num - b.Num) })
	return logs, rest
}

func (o oneLog) Open(fd storage.FileDesc) (storage.Reader, error) {
	if fd.Type != storage.TypeJournal {
		return o.Storage.Open(fd)
	}
	all, err := o.Storage.List(storage.TypeJournal)
	if err != nil {
		return nil, err
	}
	var joined []byte
	logs, _ := logsFirst(all)
	for _, fd := range logs {
		r, err := o.Storage.Open(fd)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
		// Each begins with a block of its own.
		joined = append(joined, make([]byte, -len(joined)&(logBlock-1))...)
		joined = append(joined, b...)
	}
	return readLog{bytes.NewReader(joined)}, nil
}

type readLog struct{ *bytes.Reader }

func (readLog) Close() error { return nil }
