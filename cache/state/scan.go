package state

import (
	"bytes"

	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// Scan implements Reader on the live tables. The overlays of now are walked as
// they are, without a copy: they stay readable after they have moved into
// leveldb, whose iterator is a snapshot by itself.
func (s *Store) Scan(start, end []byte, fn func(key, value []byte) bool) error {
	r := &util.Range{Start: start, Limit: end}
	var m merger
	s.mu.RLock()
	m.add(s.active.NewIterator(r), true)
	for i := len(s.frozen) - 1; i >= 0; i-- {
		m.add(s.frozen[i].mem.NewIterator(r), true)
	}
	m.add(s.db.NewIterator(r, nil), false)
	s.mu.RUnlock()
	defer func() { s.reads.Add(m.passed) }()
	err := s.indexError(m.run(fn))
	s.tryAgain(err)
	return err
}

// merger walks several sorted sources as one. Of equal keys the one in the
// source that was added first counts.
type merger struct {
	sources []source
	passed  int64 // keys come by
	err     error // of a source: the others do not go on without it
}

type source struct {
	it      iterator.Iterator
	overlay bool // values carry the first byte that tells present from deleted
	ok      bool // it stands on a row
}

func (m *merger) add(it iterator.Iterator, overlay bool) {
	m.sources = append(m.sources, source{it: it, overlay: overlay})
}

// run calls fn for the rows until it returns false, and releases the sources.
func (m *merger) run(fn func(key, value []byte) bool) error {
	defer func() {
		for _, s := range m.sources {
			s.it.Release()
		}
	}()
	for i := range m.sources {
		m.next(&m.sources[i])
	}
	for {
		least := m.least()
		if m.err != nil || least == nil {
			return m.err
		}
		key, value := least.it.Key(), least.it.Value()
		if v, present := least.value(value); present && key[0] != 0 && !fn(key, v) {
			return nil
		}
		m.pass(key, least)
	}
}

// least is the newest source of those that stand on the smallest key.
func (m *merger) least() *source {
	var least *source
	for i := range m.sources {
		s := &m.sources[i]
		if s.ok && (least == nil || bytes.Compare(s.it.Key(), least.it.Key()) < 0) {
			least = s
		}
	}
	return least
}

// pass moves every source behind key; least last, for it owns the key.
func (m *merger) pass(key []byte, least *source) {
	m.passed++
	for i := range m.sources {
		if s := &m.sources[i]; s != least && s.ok && bytes.Equal(s.it.Key(), key) {
			m.next(s)
		}
	}
	m.next(least)
}

// next moves a source to its next row.
func (m *merger) next(s *source) {
	if s.ok = s.it.Next(); !s.ok && m.err == nil {
		m.err = s.it.Error()
	}
}

// value is a row's value, and whether there is one.
func (s *source) value(v []byte) ([]byte, bool) {
	if !s.overlay {
		return v, true
	}
	return v[1:], v[0] == present
}
