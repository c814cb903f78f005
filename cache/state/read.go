package state

import (
	"errors"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// Reader is what the live tables and a view of them have in common.
type Reader interface {
	// Get returns the value of key, and whether there is one.
	Get(key []byte) ([]byte, bool, error)
	// Scan calls fn for the rows from start on, below end, in order, until
	// it returns false. Key and value are only valid during the call. fn may
	// change the live tables; of a row that changes during a scan of them,
	// the old state or the new one is seen. What a scan costs depends on the
	// rows that it comes by, not on those behind where fn ends it.
	Scan(start, end []byte, fn func(key, value []byte) bool) error
}

// PrefixEnd is the end of the range of all keys that begin with prefix.
func PrefixEnd(prefix []byte) []byte { return util.BytesPrefix(prefix).Limit }

// Get returns the value of key as of now.
func (s *Store) Get(key []byte) (value []byte, there bool, err error) {
	s.reads.Add(1)
	defer func() { s.tryAgain(err) }()
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.get(key)
}

// get is Get with s.mu held.
func (s *Store) get(key []byte) ([]byte, bool, error) {
	if v, there, known := s.overlaid(key); known {
		return v, there, nil
	}
	return s.getDB(s.db, key)
}

// overlaid is what the overlays say of key, if they know of it; s.mu is held.
func (s *Store) overlaid(key []byte) (value []byte, there, known bool) {
	if v, err := s.active.Get(key); err == nil {
		return v[1:], v[0] == present, true
	}
	for i := len(s.frozen) - 1; i >= 0; i-- {
		if v, err := s.frozen[i].mem.Get(key); err == nil {
			return v[1:], v[0] == present, true
		}
	}
	return nil, false, false
}

func (s *Store) getDB(db leveldb.Reader, key []byte) ([]byte, bool, error) {
	v, err := db.Get(key, nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, s.indexError(err)
	}
	return v, true, nil
}

// Cut is a view being taken: begun at one instant, readable by View.
type Cut struct {
	s   *Store
	err error // why there is no view: the disk was full when it was begun
	// Seq is the number of the last batch in the view.
	Seq uint64
}

// PrepareCut makes the next BeginCut quicker.
func (s *Store) PrepareCut() {
	spare := s.newMem()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spare = spare
}

// BeginCut fixes the instant of a view. It is quick; View must follow.
func (s *Store) BeginCut() *Cut {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &Cut{s: s, Seq: s.seq}
	if len(s.frozen) >= overlayMax {
		c.err = s.full // each attempt would leave one more behind
	}
	if c.err == nil {
		s.freeze()
	}
	s.cuts++
	return c
}

// View returns the view. It moves the overlays of before the cut into
// leveldb, while newer batches go on gathering in memory. After several cuts that
// failed because the disk is full, it only tries whether it still is, and fails.
func (c *Cut) View() (*View, error) {
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
	if c.err != nil {
		return nil, c.err
	}
	snap, err := s.db.GetSnapshot()
	if err != nil {
		return nil, s.indexError(err)
	}
	return &View{snap, asked{snap, &s.db.asks}, s, c.Seq}, nil
}

// View is an unchanging view of the tables, safe for concurrent use.
// Release it soon: it keeps what has been overwritten since on the disk. What is read
// fails when the index was opened anew since, as after the disk was full.
type View struct {
	snap *leveldb.Snapshot
	rows asked // of the snapshot
	s    *Store
	// Seq is the number of the last batch that the view contains.
	Seq uint64
}

// Get implements Reader.
func (v *View) Get(key []byte) ([]byte, bool, error) {
	v.s.reads.Add(1)
	return v.s.getDB(v.rows, key)
}

// Scan implements Reader.
func (v *View) Scan(start, end []byte, fn func(key, value []byte) bool) error {
	var m merger
	defer func() { v.s.reads.Add(m.passed) }()
	m.add(v.rows.NewIterator(&util.Range{Start: start, Limit: end}, nil), false)
	return v.s.indexError(m.run(fn))
}

// Release ends the view.
func (v *View) Release() { v.snap.Release() }
