package state

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
)

// reopened opens the index of a store anew.
func reopened(t *testing.T, s *Store) {
	t.Helper()
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if err := s.reopen(); err != nil {
		t.Error(err)
	}
}

// A view that is read while the index is opened anew, or closed, has all rows, or fails.
func TestViewWhileReopened(t *testing.T) {
	s, _, _ := onFaulty(t)
	overlayed(t, s, "b")
	const rounds = 15
	for round := range rounds {
		put(t, s, "a", fmt.Sprint(round)) // is not in a table
		view := cutInTheEnd(t, s)
		var begun, ended sync.WaitGroup
		for i := range 16 {
			begun.Add(1)
			ended.Go(func() {
				for first, err := true, error(nil); err == nil; first = false {
					rows := 0
					if i%2 == 0 {
						err = view.Scan([]byte("a"), []byte("c"), func(_, _ []byte) bool { rows++; return true })
					} else {
						var there bool
						if _, there, err = view.Get([]byte("b-00")); there {
							rows = 81
						}
					}
					switch {
					case err != nil && !errors.Is(err, leveldb.ErrClosed):
						t.Error(err)
					case err == nil && rows != 81:
						t.Errorf("it has %d rows", rows)
					}
					if first {
						begun.Done()
					}
				}
			})
		}
		begun.Wait()
		if round < rounds-1 {
			reopened(t, s)
		} else if err := s.Close(); err != nil {
			t.Error(err)
		}
		ended.Wait()
		view.Release()
	}
}

// Who scans may wait for what waits for the index to be opened anew, or closed. The scan
// fails then: it has not come by all rows.
func TestReopenedWithinAScan(t *testing.T) {
	s, _, _ := onFaulty(t)
	overlayed(t, s, "b")
	view := cutInTheEnd(t, s)
	for _, tables := range []Reader{view, s, s} {
		rows := 0
		err := tables.Scan([]byte("b"), []byte("c"), func(k, _ []byte) bool {
			if rows++; rows > 1 {
				t.Errorf("it went on to %s", k)
			}
			reopened(t, s)
			put(t, s, "a", "1")
			return true
		})
		if !errors.Is(err, leveldb.ErrClosed) || s.Damage() != nil {
			t.Errorf("scanned: %v; damage: %v", err, s.Damage())
		}
	}
	if _, _, err := view.Get([]byte("b-00")); !errors.Is(err, leveldb.ErrClosed) {
		t.Errorf("read in a view of before: %v", err)
	}
	view.Release()
	err := s.Scan([]byte("b"), []byte("c"), func(_, _ []byte) bool {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		return true
	})
	if !errors.Is(err, leveldb.ErrClosed) {
		t.Errorf("scanned: %v", err)
	}
}
