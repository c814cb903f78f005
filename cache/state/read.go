package state

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/memdb"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// Reader is what the live tables and a snapshot have in common.
type Reader interface {
	// Get returns the value of key, and whether there is one.
	Get(key []byte) ([]byte, bool, error)
	// Scan calls fn for the rows from start on, below end, in order, until
	// it returns false. Key and value are only valid during the call. fn may
	// change the live tables; it sees the rows as they were when Scan began.
	Scan(start, end []byte, fn func(key, value []byte) bool) error
}

// Row is one key with its value.
type Row struct{ Key, Value []byte }

// PrefixEnd is the end of the range of all keys that begin with prefix.
func PrefixEnd(prefix []byte) []byte { return util.BytesPrefix(prefix).Limit }

// Get returns the value of key as of now.
func (s *Store) Get(key []byte) ([]byte, bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.get(key)
}

// get is Get with s.mu held.
func (s *Store) get(key []byte) ([]byte, bool, error) {
	if v, err := s.active.Get(key); err == nil {
		return v[1:], v[0] == present, nil
	}
	for i := len(s.frozen) - 1; i >= 0; i-- {
		if v, err := s.frozen[i].mem.Get(key); err == nil {
			return v[1:], v[0] == present, nil
		}
	}
	return getDB(s.db, key)
}

func getDB(db leveldb.Reader, key []byte) ([]byte, bool, error) {
	v, err := db.Get(key, nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("index: %w", err)
	}
	return v, true, nil
}

// Scan implements Reader on the live tables.
func (s *Store) Scan(start, end []byte, fn func(key, value []byte) bool) error {
	r := &util.Range{Start: start, Limit: end}
	s.mu.RLock()
	// The overlays' part is copied: it goes on changing. leveldb's iterator
	// is a snapshot by itself.
	overlaid := collect(nil, s.active, r)
	for i := len(s.frozen) - 1; i >= 0; i-- {
		overlaid = collect(overlaid, s.frozen[i].mem, r)
	}
	it := s.db.NewIterator(r, nil)
	s.mu.RUnlock()
	defer it.Release()
	return merge(overlaid, it, fn)
}

// collect merges the rows of an older overlay below those of newer ones.
func collect(newer []Row, mem *memdb.DB, r *util.Range) []Row {
	it := mem.NewIterator(r)
	defer it.Release()
	if !it.Next() {
		return newer
	}
	out := make([]Row, 0, len(newer)+64)
	for ok := true; ok; ok = it.Next() {
		k := it.Key()
		for len(newer) > 0 && bytes.Compare(newer[0].Key, k) < 0 {
			out, newer = append(out, newer[0]), newer[1:]
		}
		if len(newer) > 0 && bytes.Equal(newer[0].Key, k) {
			continue
		}
		out = append(out, Row{bytes.Clone(k), bytes.Clone(it.Value())})
	}
	return append(out, newer...)
}

// merge walks overlaid rows, whose values carry the first byte, over leveldb's.
func merge(overlaid []Row, it iterator.Iterator, fn func(key, value []byte) bool) error {
	ok := it.Next()
	for ok || len(overlaid) > 0 {
		c := -1
		switch {
		case len(overlaid) == 0:
			c = 1
		case ok:
			c = bytes.Compare(overlaid[0].Key, it.Key())
		}
		if c > 0 {
			if it.Key()[0] != 0 && !fn(it.Key(), it.Value()) {
				return nil
			}
			ok = it.Next()
			continue
		}
		row := overlaid[0]
		overlaid = overlaid[1:]
		if c == 0 {
			ok = it.Next()
		}
		if row.Value[0] == present && !fn(row.Key, row.Value[1:]) {
			return nil
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}

// Cut is a view being taken: begun at one instant, readable after Snapshot.
type Cut struct {
	s *Store
	n int // overlays to move first
	// Seq is the number of the last batch in the view.
	Seq uint64
}

// BeginCut fixes the instant of a view. It is quick; Snapshot must follow.
func (s *Store) BeginCut() *Cut {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freeze()
	s.cuts++
	return &Cut{s: s, n: len(s.frozen), Seq: s.seq}
}

// Snapshot returns the view. It moves the overlays of before the cut into
// leveldb, while newer batches go on gathering in memory.
func (c *Cut) Snapshot() (*Snapshot, error) {
	s := c.s
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	defer func() {
		s.mu.Lock()
		s.cuts--
		if len(s.frozen) > 0 {
			s.flushSoon()
		}
		s.mu.Unlock()
	}()
	for {
		s.mu.RLock()
		pending := len(s.frozen) > 0 && s.frozen[0].seq <= c.Seq
		s.mu.RUnlock()
		if !pending {
			break
		}
		if err := s.flushFrozen(1); err != nil {
			return nil, err
		}
	}
	snap, err := s.db.GetSnapshot()
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	return &Snapshot{snap, c.Seq}, nil
}

// Snapshot is an unchanging view of the tables, safe for concurrent use.
// Release it soon: it keeps what has been overwritten since on the disk.
type Snapshot struct {
	snap *leveldb.Snapshot
	// Seq is the number of the last batch that the view contains.
	Seq uint64
}

// Get implements Reader.
func (v *Snapshot) Get(key []byte) ([]byte, bool, error) { return getDB(v.snap, key) }

// Scan implements Reader.
func (v *Snapshot) Scan(start, end []byte, fn func(key, value []byte) bool) error {
	it := v.snap.NewIterator(&util.Range{Start: start, Limit: end}, nil)
	defer it.Release()
	return merge(nil, it, fn)
}

// Release ends the view.
func (v *Snapshot) Release() { v.snap.Release() }
