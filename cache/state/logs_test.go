package state

import (
	"fmt"
	"sync"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// logs watches what leveldb does to its logs.
type logs struct {
	storage.Storage
	t *testing.T

	mu      sync.Mutex     // guards both
	loose   map[int64]bool // written since they were flushed
	created int
}

func (l *logs) Create(fd storage.FileDesc) (storage.Writer, error) {
	w, err := l.Storage.Create(fd)
	if fd.Type != storage.TypeJournal {
		return w, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.created++
	return &watchedLog{w, l, fd.Num}, err
}

type watchedLog struct {
	storage.Writer
	of  *logs
	num int64
}

func (w *watchedLog) Write(p []byte) (int, error) {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	for num := range w.of.loose {
		if num < w.num {
			w.of.t.Errorf("log %d is written while log %d is not on the disk", w.num, num)
		}
	}
	if len(p) > 0 {
		w.of.loose[w.num] = true
	}
	return w.Writer.Write(p)
}

func (w *watchedLog) Sync() error {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	delete(w.of.loose, w.num)
	return w.Writer.Sync()
}

// What leveldb's newer log says of how far the index goes must not outlive what
// the older one holds.
func TestLogsReachTheDiskInOrder(t *testing.T) {
	l := &logs{Storage: storage.NewMemStorage(), t: t, loose: map[int64]bool{}}
	s, err := OpenWith(t.TempDir(), Options{OverlaySize: 64 << 10, Index: func(string) (storage.Storage, error) { return l, nil }})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		var b Batch
		for j := range 10 { // small overlays go through the log
			b.Put(fmt.Append([]byte("k"), i, "-", j), make([]byte, 1000))
		}
		if _, err := s.Apply(&b); err != nil {
			t.Fatal(err)
		}
		view, err := s.BeginCut().View()
		if err != nil {
			t.Fatal(err)
		}
		view.Release()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if l.created < 3 {
		t.Errorf("only %d logs were begun", l.created)
	}
}
