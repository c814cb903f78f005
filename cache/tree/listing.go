package tree

import (
	"cmp"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
)

// A listing is read some entries at a time: few where they may be in vain, since
// the directory changes meanwhile; ever more as long as it does not.
const (
	listFew  = 32
	listMore = 128
	listMost = 512
)

// keptListings is of how many directories entries are kept that were read ahead.
const keptListings = 16

// namedEntry is an entry with its name.
type namedEntry struct {
	entry
	name string
}

// listings keep what was read of directories and not asked for yet: the kernel
// asks for a few entries at a time, and looking for the place where to go on
// costs more than the entries. What is kept of a directory counts as long as none
// of its names changed.
type listings struct {
	states atomic.Uint64 // the last of inode.names
	kept   [keptListings]listing
}

// listing is what is kept of one directory.
type listing struct {
	mu      sync.Mutex // guards all below
	dir     Ino
	names   uint64       // inode.names when it was read
	after   uint64       // cookie behind which it was read
	entries []namedEntry // never changed
	end     bool         // no entry comes behind them
}

func (l *listings) of(dir Ino) *listing { return &l.kept[dir%keptListings] }

// next returns the entries after cookie of those that are kept. If there are
// none, it returns how many to read; 0 says that none follow.
func (l *listing) next(dir Ino, names, cookie uint64) ([]namedEntry, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case cookie < firstCookie && l.dir == dir && l.names == names && l.after == cookie:
		return l.entries, listMore
	case cookie < firstCookie:
		return nil, listMore
	case l.dir != dir || l.names != names || cookie < l.after:
		return nil, listFew
	}
	i := sort.Search(len(l.entries), func(i int) bool { return l.entries[i].cookie > cookie })
	if i < len(l.entries) {
		return l.entries[i:], 0
	}
	if l.end {
		return nil, 0
	}
	return nil, min(4*len(l.entries), listMost)
}

func (l *listing) keep(dir Ino, names, after uint64, entries []namedEntry, end bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dir, l.names, l.after, l.entries, l.end = dir, names, after, entries, end
}

// listed returns some entries of a directory after cookie, none at its end.
func (t *Tree) listed(d *inode, cookie uint64) ([]namedEntry, error) {
	l, names := t.listings.of(d.ino), t.namesNow(d)
	part, n := l.next(d.ino, names, cookie)
	if len(part) > 0 || n == 0 {
		return part, nil
	}
	part, all := d.knownAfter(cookie)
	if !all {
		var err error
		if part, err = t.readEntries(d.ino, cookie, n); err != nil {
			return nil, err
		}
	}
	if t.namesNow(d) == names {
		l.keep(d.ino, names, cookie, part, all || len(part) < n)
	}
	return part, nil
}

// knownAfter returns the entries of a directory after cookie, if all its names
// are in memory and they are not too many.
func (d *inode) knownAfter(cookie uint64) (part []namedEntry, all bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.known.all || len(d.known.m) > listMost {
		return nil, false
	}
	part = make([]namedEntry, 0, len(d.known.m))
	for name, e := range d.known.m {
		if e.cookie > cookie {
			part = append(part, namedEntry{e, name})
		}
	}
	slices.SortFunc(part, func(a, b namedEntry) int { return cmp.Compare(a.cookie, b.cookie) })
	return part, true
}

// namesNow tells the state of a directory's names from every other.
func (t *Tree) namesNow(d *inode) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names == 0 {
		d.names = t.listings.states.Add(1)
	}
	return d.names
}
