package state

// Row is one key with its value.
type Row struct{ Key, Value []byte }

// Look is when rows were read that Change is to be told of.
type Look struct{ inDB uint64 }

// Look begins to read rows for Change.
func (s *Store) Look() Look {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Look{s.inDB}
}

// Change calls fn for each of some rows as they are now, with a nil value where
// there is none, and applies what it adds to the batch; nobody else changes
// anything between. The caller has read the rows since look, so that leveldb is
// hardly asked while others wait.
func (s *Store) Change(look Look, rows []Row, fn func(b *Batch, now Row)) error {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	var b Batch
	for _, r := range rows {
		now, err := s.now(look, r)
		if err != nil {
			return err
		}
		fn(&b, now)
	}
	if b.Len() == 0 {
		return nil
	}
	_, err := s.applyNext(&b)
	return err
}

// now is a row as it is, given what it was at some time since look.
func (s *Store) now(look Look, r Row) (Row, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, there, known := s.overlaid(r.Key)
	if !known {
		if look.inDB == s.inDB {
			return r, nil // nothing came into leveldb since
		}
		var err error
		if v, there, err = s.getDB(s.db, r.Key); err != nil {
			return r, err
		}
	}
	if !there {
		return Row{Key: r.Key}, nil
	}
	return Row{r.Key, append([]byte{}, v...)}, nil
}
