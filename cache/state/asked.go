package state

import (
	"sync"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// asks keeps leveldb from being closed while it is asked something: it would panic, or say
// that there is nothing.
type asks struct {
	mu     sync.RWMutex // held for reading by who asks, who waits for nothing but the disk
	closed bool
}

// ask asks leveldb something, unless it is closed.
func (a *asks) ask(do func() error) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.closed {
		return leveldb.ErrClosed
	}
	return do()
}

// asked is what leveldb has, now or in a snapshot. What is asked when leveldb is closed
// fails; so do iterators that were begun before.
type asked struct {
	leveldb.Reader
	asks *asks
}

func (a asked) Get(key []byte, ro *opt.ReadOptions) (value []byte, err error) {
	err = a.asks.ask(func() error {
		value, err = a.Reader.Get(key, ro)
		return err
	})
	return value, err
}

func (a asked) NewIterator(r *util.Range, ro *opt.ReadOptions) iterator.Iterator {
	var it iterator.Iterator
	err := a.asks.ask(func() error {
		it = a.Reader.NewIterator(r, ro)
		return nil
	})
	if err != nil {
		return iterator.NewEmptyIterator(err)
	}
	return &askedOn{Iterator: it, asks: a.asks}
}

// askedOn is an iterator that is only gone on with, to the next row.
type askedOn struct {
	iterator.Iterator
	asks *asks
	err  error // why it was not gone on with
}

func (a *askedOn) Next() (there bool) {
	a.err = a.asks.ask(func() error {
		there = a.Iterator.Next()
		return a.Iterator.Error()
	})
	return there
}

func (a *askedOn) Error() error { return a.err }

func (a *askedOn) Release() {
	a.asks.mu.RLock()
	defer a.asks.mu.RUnlock()
	a.Iterator.Release()
}
