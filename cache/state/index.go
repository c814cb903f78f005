package state

import (
	"errors"
	"fmt"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// index is leveldb with what it stores its files in.
type index struct {
	*leveldb.DB
	stor     storage.Storage
	readOnly bool
}

// openDB opens leveldb. When the disk is too full for what that writes (a table of
// what its log has), and there is no ballast left to give up, it can only be read,
// and s.full says why; nobody else is there, or s.mu is held.
func (s *Store) openDB() (*index, error) {
	db, err := s.openDBWith(false)
	for isFull(err) && s.ballast.yield() {
		db, err = s.openDBWith(false)
	}
	if !isFull(err) {
		return db, err
	}
	s.full = fmt.Errorf("index: %w", err)
	if db, rerr := s.openDBWith(true); rerr == nil {
		return db, nil
	}
	return nil, err
}

func (s *Store) openDBWith(readOnly bool) (*index, error) {
	open := s.opt.Index
	if open == nil {
		if err := s.opt.Disk.Mkdir(s.indexDir()); err != nil { // leveldb's own would be open to all
			return nil, err
		}
		open = func(dir string) (storage.Storage, error) { return storage.OpenFile(dir, false) }
	}
	stor, err := open(s.indexDir())
	if err != nil {
		return nil, err
	}
	db, err := leveldb.Open(flushing{gathering{untorn{stor}}}, s.indexOptions(readOnly))
	if err != nil {
		_ = stor.Close()
		return nil, err
	}
	return &index{db, stor, readOnly}, nil
}

// Close closes leveldb and its files.
func (x *index) Close() error { return errors.Join(x.DB.Close(), x.stor.Close()) }

// gathering writes tables in large pieces, where leveldb writes block by block.
// A table counts when it is flushed and closed; all other files are written as
// they come.
type gathering struct{ storage.Storage }

func (g gathering) Create(fd storage.FileDesc) (storage.Writer, error) {
	w, err := g.Storage.Create(fd)
	if err != nil || fd.Type != storage.TypeTable {
		return w, err
	}
	return &gatherer{Writer: w, buf: make([]byte, 0, gatherSize)}, nil
}

// gatherSize is how much of a table is written at once.
const gatherSize = 128 << 10

type gatherer struct {
	storage.Writer
	buf []byte
}

func (g *gatherer) Write(p []byte) (int, error) {
	if len(g.buf)+len(p) > cap(g.buf) {
		if err := g.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) > cap(g.buf) {
		return g.Writer.Write(p)
	}
	g.buf = append(g.buf, p...)
	return len(p), nil
}

// flush writes what was gathered. After a failure it is gone: leveldb gives the
// table up.
func (g *gatherer) flush() error {
	if len(g.buf) == 0 {
		return nil
	}
	_, err := g.Writer.Write(g.buf)
	g.buf = g.buf[:0]
	return err
}

func (g *gatherer) Sync() error {
	if err := g.flush(); err != nil {
		return err
	}
	return g.Writer.Sync()
}

func (g *gatherer) Close() error { return errors.Join(g.flush(), g.Writer.Close()) }

// flushing flushes a log of leveldb before it is closed. Leveldb begins the next
// one while the table that the full one becomes is still being made, and flushes
// neither: after power loss the newer could be there, with the number up to which
// the index is complete, and the older not.
type flushing struct{ storage.Storage }

func (f flushing) Create(fd storage.FileDesc) (storage.Writer, error) {
	w, err := f.Storage.Create(fd)
	if err != nil || fd.Type != storage.TypeJournal {
		return w, err
	}
	return flushedLog{w}, nil
}

type flushedLog struct{ storage.Writer }

func (l flushedLog) Close() error { return errors.Join(l.Sync(), l.Writer.Close()) }
