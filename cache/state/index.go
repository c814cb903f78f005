package state

import (
	"errors"
	"fmt"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/cache"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// index is leveldb with what it stores its files in.
type index struct {
	*leveldb.DB
	files    *files
	blocks   cache.Cacher // of tables, in memory
	readOnly bool
	asks     asks
	// Guarded by who may write to it:
	stuck    bool          // it keeps a lock for good
	entering chan struct{} // closed when the last transaction has ended
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
	f := &files{Storage: untorn{stor}}
	if readOnly {
		f.Storage = oneLog{f.Storage}
	}
	options := s.indexOptions(readOnly)
	blocks := cache.NewLRU(options.BlockCacheCapacity)
	options.BlockCacher = opt.PassthroughCacher(blocks)
	db, err := leveldb.Open(gathering{f}, options)
	if err != nil {
		err = f.because(err)
		_ = f.Close()
		return nil, err
	}
	return &index{DB: db, files: f, blocks: blocks, readOnly: readOnly}, nil
}

// Get is that of leveldb; see asked.
func (x *index) Get(key []byte, ro *opt.ReadOptions) ([]byte, error) {
	return asked{x.DB, &x.asks}.Get(key, ro)
}

// NewIterator is that of leveldb; see asked.
func (x *index) NewIterator(r *util.Range, ro *opt.ReadOptions) iterator.Iterator {
	return asked{x.DB, &x.asks}.NewIterator(r, ro)
}

// Write writes a batch, unless an earlier write failed: see files.
func (x *index) Write(b *leveldb.Batch, wo *opt.WriteOptions) error {
	if err := x.files.err(); err != nil {
		return err
	}
	return x.files.because(x.DB.Write(b, wo))
}

// writeFlushed writes a batch that is on the disk when it returns, with all that was
// written before.
func (x *index) writeFlushed(fill func(*leveldb.Batch)) error {
	b := leveldb.MakeBatch(32)
	fill(b)
	return x.Write(b, &opt.WriteOptions{Sync: true})
}

// CompactRange is that of leveldb, unless an earlier write failed.
func (x *index) CompactRange(r util.Range) error {
	if err := x.files.err(); err != nil {
		return err
	}
	return x.files.because(x.unlessBroken(func() error { return x.DB.CompactRange(r) }))
}

// unlessBroken does something in leveldb, and waits for it, unless a change fails
// meanwhile: leveldb may then wait for ever for a lock that it keeps itself.
func (x *index) unlessBroken(do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-x.files.broken():
		return x.files.err()
	}
}

// transaction makes a change past leveldb's log, in one atomic write. After one that
// failed none is made any more: leveldb keeps the lock that writers take, or that which
// tables are entered under.
func (x *index) transaction(fill func(tr *leveldb.Transaction) error) error {
	if err := x.files.err(); err != nil {
		return err
	}
	tr, err := x.begin()
	if err != nil {
		return x.giveUp(err)
	}
	if err := fill(tr); err != nil {
		tr.Discard()
		return err
	}
	if err := x.enter(tr); err != nil {
		select {
		case <-x.entering:
			tr.Discard()
		default: // it waits, and is discarded when leveldb is closed
		}
		return x.giveUp(err)
	}
	return nil
}

// enter commits a transaction. If that fails, it may have been entered all the same.
func (x *index) enter(tr *leveldb.Transaction) error {
	ended := make(chan struct{})
	x.entering = ended
	return x.unlessBroken(func() error {
		defer close(ended)
		return tr.Commit()
	})
}

// begin begins a transaction when nothing is on its way from a log into a table any more.
// Leveldb does not wait for that if there is nothing in its newest log: the tables of the
// transaction would count as newer than the log, and all in the log as done.
func (x *index) begin() (*leveldb.Transaction, error) {
	for range 3 {
		tr, err := x.OpenTransaction()
		if err != nil || !x.files.rotating() {
			return tr, err
		}
		tr.Discard()
		b := leveldb.MakeBatch(32)
		b.Delete(nothingKey) // now it waits
		if err := x.Write(b, nil); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("a log of the index does not become a table")
}

// giveUp has all later changes fail, and Close not wait for leveldb.
func (x *index) giveUp(err error) error {
	x.stuck = true
	return x.files.because(x.files.fail(err))
}

// Close closes leveldb and its files. One that was given up may never end, and keeps two
// goroutines and what waits in its memory, but neither files nor blocks of tables. Who asks
// it something is waited for, or waits.
func (x *index) Close() error {
	x.asks.mu.Lock()
	defer x.asks.mu.Unlock()
	x.asks.closed = true
	if !x.stuck {
		return errors.Join(x.DB.Close(), x.files.Close())
	}
	err := x.files.Close()
	x.blocks.SetCapacity(0)
	go x.leave(x.entering)
	return err
}

// leave has leveldb end, as far as it does. A transaction that is about to end does so
// first: leveldb does not expect that while it is being closed.
func (x *index) leave(entering <-chan struct{}) {
	if entering != nil {
		select {
		case <-entering:
		case <-time.After(enterTime):
		}
	}
	_ = x.DB.Close()
}

// enterTime is more than leveldb takes to give up a transaction that it cannot enter.
const enterTime = 10 * time.Second

// gathering writes tables in large pieces, where leveldb writes block by block.
// A table counts when it is flushed; all other files are written as they come.
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

// Close gives up what was not flushed: so does leveldb, with the table.
func (g *gatherer) Close() error { return g.Writer.Close() }
