package state

import (
	"bytes"
	"errors"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// counted counts what is written to a storage's files, and fails on demand.
type counted struct {
	storage.Storage
	writes int
	fail   error
}

func (c *counted) Create(fd storage.FileDesc) (storage.Writer, error) {
	w, err := c.Storage.Create(fd)
	return countedFile{w, c}, err
}

type countedFile struct {
	storage.Writer
	c *counted
}

func (f countedFile) Write(p []byte) (int, error) {
	if f.c.fail != nil {
		return 0, f.c.fail
	}
	f.c.writes++
	return f.Writer.Write(p)
}

// Tables are written in large pieces, whole when they are flushed; all else at
// once. What cannot be written is told at the flush.
func TestGathering(t *testing.T) {
	c := &counted{Storage: storage.NewMemStorage()}
	table := storage.FileDesc{Type: storage.TypeTable, Num: 1}
	w, err := gathering{c}.Create(table)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for i, n := range []int{1, 4000, gatherSize - 1, gatherSize, 3 * gatherSize, 7, 100} {
		p := bytes.Repeat([]byte{byte(i + 1)}, n)
		want = append(want, p...)
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Sync(), w.Close()); err != nil {
		t.Fatal(err)
	}
	r, err := c.Open(table)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want)+1)
	if n, _ := r.ReadAt(got, 0); !bytes.Equal(got[:n], want) {
		t.Errorf("%d bytes came of %d, or others", n, len(want))
	}
	if c.writes > 5 {
		t.Errorf("written in %d pieces", c.writes)
	}
	c.writes = 0
	log, err := gathering{c}.Create(storage.FileDesc{Type: storage.TypeJournal, Num: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Write([]byte("x")); err != nil || c.writes != 1 {
		t.Errorf("a log is not written at once: %v", err)
	}
	c.fail = errors.New("failed")
	w, _ = gathering{c}.Create(storage.FileDesc{Type: storage.TypeTable, Num: 3})
	if _, err := w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(); !errors.Is(err, c.fail) {
		t.Errorf("a flush that failed says %v", err)
	}
}
