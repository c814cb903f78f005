package tree

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"skep/cache/state"
)

// Carry writes again the rows of what no commit has taken yet, and the named
// values: should the index be lost, the newest commit and a journal that begins with
// record first give everything back. What is changed from then on carries the rest of
// its rows by itself: see change.carry. All is done in pieces, which work is called with
// one after the other. Where it is broken off, the next call begins with the same record,
// as long as the journal is in the same segment. It returns how many bytes it wrote.
func (t *Tree) Carry(work func(piece func() error) error) (first uint64, bytes int64, err error) {
	if first, err = t.beginKept(); err != nil {
		return 0, 0, fmt.Errorf("carry over: %w", err)
	}
	marks, err := t.liveMarks()
	if err != nil {
		return 0, 0, err
	}
	c := carrier{t: t, work: work, seen: map[Ino]bool{}}
	for _, m := range marks {
		if err := c.mark(m); err != nil {
			return 0, c.bytes, fmt.Errorf("carry over: %w", err)
		}
	}
	if err := c.writing(); err != nil {
		return 0, c.bytes, fmt.Errorf("carry over: %w", err)
	}
	if err := c.singles(); err != nil {
		return 0, c.bytes, fmt.Errorf("carry over: %w", err)
	}
	if err := c.flush(0); err != nil {
		return 0, c.bytes, fmt.Errorf("carry over: %w", err)
	}
	t.unfinished.Store(0)
	return first, c.bytes, nil
}

// beginKept has whatever is changed from now on carry its rows, and returns the number
// of the record with which that begins. Nothing is being changed at that moment: a row
// that came later without those that belong to it would count as newer than the commit.
func (t *Tree) beginKept() (first uint64, err error) {
	if err := t.st.Sync(); err != nil { // else others wait for it
		return 0, err
	}
	t.gate.Lock()
	defer t.gate.Unlock()
	if first, err = t.st.Rotate(t.unfinished.Load()); err != nil {
		return 0, noSpace(err)
	}
	t.unfinished.Store(first)
	t.kept.Store(max(t.kept.Load(), first))
	t.above.clear()
	return first, nil
}

func (t *Tree) liveMarks() ([]Mark, error) {
	var out []Mark
	var bad error
	err := t.st.Scan([]byte{tableMark}, []byte{tableMark + 1}, func(k, _ []byte) bool {
		m, err := parseMark(k)
		out, bad = append(out, m), err
		return err == nil
	})
	if err == nil {
		err = bad
	}
	return out, err
}

// carrier gathers rows to be written again.
type carrier struct {
	t     *Tree
	work  func(piece func() error) error
	seen  map[Ino]bool
	keys  [][]byte
	bytes int64
}

// carryStep is how many rows are written again in one batch.
const carryStep = 32

func (c *carrier) mark(m Mark) error {
	c.keys = append(c.keys, markKey(m.Dir, m.Name))
	if m.Dir == Links || m.Dir == 0 {
		var ino uint64
		if _, err := fmt.Sscanf(m.Name, "%016x", &ino); err == nil {
			if err := c.inode(Ino(ino)); err != nil {
				return err
			}
		}
		return c.flush(carryStep)
	}
	if err := c.directory(m.Dir); err != nil {
		return err
	}
	ek := entryKey(m.Dir, m.Name)
	c.keys = append(c.keys, ek)
	if v, ok, err := c.t.st.Get(ek); err != nil {
		return err
	} else if e, derr := decodeEntry(v); ok && derr == nil {
		c.keys = append(c.keys, cookieKey(m.Dir, e.cookie))
		if err := c.inode(e.ino); err != nil {
			return err
		}
	}
	return c.flush(carryStep)
}

// directory gathers the rows of a directory and of those above it: a commit goes down to
// what changed by them, and what has no row, or no entry, counts as removed.
func (c *carrier) directory(dir Ino) error {
	for dir != 0 && !c.seen[dir] {
		if err := c.inode(dir); err != nil {
			return err
		}
		r, err := c.t.rowNow(dir)
		if err != nil {
			return ignoreStale(err)
		}
		place, err := c.t.placeOf(&r)
		if err != nil {
			return err
		}
		c.keys = append(c.keys, place...)
		dir = r.parent
	}
	return nil
}

// placeOf is the keys of the rows by which an inode is in its directory.
func (t *Tree) placeOf(r *row) ([][]byte, error) {
	v, there, err := t.st.Get(entryKey(r.parent, r.name))
	if !there || err != nil {
		return nil, err
	}
	e, err := decodeEntry(v)
	return [][]byte{entryKey(r.parent, r.name), cookieKey(r.parent, e.cookie)}, err
}

// inode gathers the rows of an inode. What cannot be read is not what is not there: the
// journal would be cut without it.
func (c *carrier) inode(ino Ino) error {
	if c.seen[ino] {
		return nil
	}
	c.seen[ino] = true
	for _, table := range []byte{tableInode, tableInline, tableXattrs, tableRanges, tableWriting} {
		c.keys = append(c.keys, key(table, ino))
	}
	v, there, err := c.t.st.Get(key(tableInode, ino))
	if !there || err != nil {
		return err
	}
	r, err := decodeRow(v)
	if err != nil || !r.has(flagBacking) {
		return nil // one that cannot be made out has nothing
	}
	c.keys = append(c.keys, backingKey(r.backing))
	added := key(tableAdded, ino)
	return c.t.st.Scan(added, state.PrefixEnd(added), func(k, _ []byte) bool {
		c.keys = append(c.keys, bytes.Clone(k))
		return true
	})
}

// writing gathers the rows of files that are open for writing: the kernel may
// write one alone that a commit has taken, and no mark tells of it.
func (c *carrier) writing() error {
	var inos []Ino
	err := c.t.st.Scan([]byte{tableWriting}, []byte{tableWriting + 1}, func(k, _ []byte) bool {
		if m, err := parseMark(k); err == nil && !c.seen[m.Dir] {
			inos = append(inos, m.Dir)
		}
		return true
	})
	for _, ino := range inos {
		r, rerr := c.t.rowNow(ino)
		if isStale(rerr) {
			continue
		}
		if err = errors.Join(err, rerr); err != nil {
			return err
		}
		m := Mark{r.parent, r.name}
		if r.has(flagMulti) {
			m = Mark{Links, linkName(ino)}
		}
		if err = c.mark(m); err != nil {
			return err
		}
	}
	return err
}

// singles gathers the named values and the pins, which no commit has.
func (c *carrier) singles() error {
	for _, table := range []byte{tableSingle, tablePin} {
		err := c.t.st.Scan([]byte{table}, []byte{table + 1}, func(k, _ []byte) bool {
			c.keys = append(c.keys, append([]byte(nil), k...))
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// flush writes the gathered rows again, if there are more than least.
func (c *carrier) flush(least int) error {
	if len(c.keys) <= least {
		return nil
	}
	for some := range slices.Chunk(c.keys, carryStep) {
		if err := c.work(func() error { return c.again(some) }); err != nil {
			return err
		}
	}
	c.keys = c.keys[:0]
	return nil
}

// again writes some rows again, in one batch.
func (c *carrier) again(keys [][]byte) error {
	n, err := c.t.again(keys)
	c.bytes += n
	return err
}

// again writes some rows again, in one batch, and returns how many bytes these are.
func (t *Tree) again(keys [][]byte) (bytes int64, err error) {
	look, rows := t.st.Look(), make([]state.Row, len(keys))
	for i, k := range keys {
		v, there, err := t.st.Get(k)
		if err != nil {
			return 0, err
		}
		if rows[i].Key = k; there {
			rows[i].Value = append([]byte{}, v...)
		}
	}
	err = t.st.Change(look, rows, func(b *state.Batch, now state.Row) {
		b.Freeing() // the journal forgets what is written again
		if now.Value != nil {
			b.Put(now.Key, now.Value)
		} else {
			b.Delete(now.Key) // its absence matters as much
		}
		bytes += int64(len(now.Key) + len(now.Value))
	})
	return bytes, err
}

// carry adds to the change, before all else, the rows that an inode's own row is
// nothing without and that the journal may not say any more: an inode that was
// not changed for long has them in the index alone. The inode's lock is held.
func (c *change) carry(in *inode) error {
	r, t := &in.row, c.t
	again := func(k []byte) ([]byte, error) {
		v, there, err := t.st.Get(k)
		if there && err == nil {
			c.first.Put(k, v)
		}
		return v, err
	}
	keys := [][]byte{key(tableXattrs, in.ino)}
	if r.has(flagInline) || r.mode&modeType == modeLnk {
		keys = append(keys, key(tableInline, in.ino))
	}
	if r.has(flagBacking) {
		keys = append(keys, backingKey(r.backing), key(tableRanges, in.ino), key(tableWriting, in.ino))
		for n := range in.added.n {
			keys = append(keys, addedKey(in.ino, n))
		}
	}
	for _, k := range keys {
		if _, err := again(k); err != nil {
			return err
		}
	}
	if r.has(flagMulti) || in.ino == Root || r.nlink == 0 {
		return nil // no name is marked for it
	}
	if err := t.carryAbove(r.parent); err != nil {
		return err
	}
	v, err := again(entryKey(r.parent, r.name))
	if err != nil || v == nil {
		return err
	}
	e, err := decodeEntry(v)
	if err == nil {
		_, err = again(cookieKey(r.parent, e.cookie))
	}
	return err
}

// carryEntry writes the rows of an entry again that is about to be marked though it does
// not change. The gate is held.
func (t *Tree) carryEntry(m Mark) error {
	c := carrier{t: t, work: func(piece func() error) error { return piece() }, seen: map[Ino]bool{}}
	return errors.Join(c.mark(m), c.flush(0))
}

// carryAbove writes the rows of a directory again, and of all above it, as far as that
// was not done since the journal begins: see carrier.directory. Each has a batch of its
// own, since all of their attributes may be more than one takes; the uppermost comes
// first, so that none is there without those above it.
func (t *Tree) carryAbove(dir Ino) error {
	type keys struct {
		dir  Ino
		rows [][]byte
	}
	var all []keys
	for dir != 0 && !t.above.has(dir) {
		r, err := t.rowNow(dir)
		if isStale(err) {
			break
		}
		if err != nil {
			return err
		}
		place, err := t.placeOf(&r)
		if err != nil {
			return err
		}
		all = append(all, keys{dir, append(place, key(tableInode, dir), key(tableXattrs, dir))})
		dir = r.parent
	}
	for _, k := range slices.Backward(all) {
		if _, err := t.again(k.rows); err != nil {
			return noSpace(err)
		}
		t.above.add(k.dir)
	}
	return nil
}

// above are the directories whose rows, with those of all above them, were written again
// since the journal begins.
type above struct {
	mu  sync.Mutex // guards all
	all map[Ino]bool
}

func (a *above) has(dir Ino) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all[dir]
}

func (a *above) add(dir Ino) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = map[Ino]bool{}
	}
	a.all[dir] = true
}

func (a *above) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = nil
}
