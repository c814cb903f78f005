package tree

// maxKnown is how many names all directories in memory may know together.
const maxKnown = 128 << 10

// A directory whose names were asked for askedOften times without being known
// is read as a whole, if it has no more than fillMax.
const (
	askedOften = 8
	fillMax    = 1024
)

// knownNames is what is in memory of a directory's entries; it is guarded by
// the directory's inode.mu, under which every change of an entry happens.
type knownNames struct {
	m     map[string]entry
	all   bool // m holds every entry: what is not in it is not there
	asked int  // how often a name was looked for in the tables
}

// entryChange is a name that a change adds or takes away.
type entryChange struct {
	dir  *inode
	name string
	to   entry
	gone bool
}

// findEntry returns what a name in a loaded directory leads to; d.mu is held.
func (t *Tree) findEntry(d *inode, name string) (entry, error) {
	k := &d.known
	if e, ok := k.m[name]; ok {
		return e, nil
	}
	if !k.all && k.asked == askedOften {
		if err := t.fillKnown(d); err != nil {
			return entry{}, err
		}
		if e, ok := k.m[name]; ok {
			return e, nil
		}
	}
	if k.all {
		return entry{}, ErrNotFound
	}
	k.asked++
	e, err := t.readEntry(d.ino, name)
	if err == nil {
		t.know(d, name, e)
	}
	return e, err
}

// readEntry is findEntry from the tables alone.
func (t *Tree) readEntry(dir Ino, name string) (entry, error) {
	b, ok, err := t.st.Get(entryKey(dir, name))
	if err != nil {
		return entry{}, err
	}
	if !ok {
		return entry{}, ErrNotFound
	}
	return decodeEntry(b)
}

// fillKnown reads all entries of a directory, unless there are too many; d.mu
// is held.
func (t *Tree) fillKnown(d *inode) error {
	d.known.asked++
	if !d.row.has(flagLoaded) {
		return nil
	}
	found := make(map[string]entry)
	var bad error
	err := t.st.Scan(key(tableEntry, d.ino), key(tableEntry, d.ino+1), func(k, v []byte) bool {
		var e entry
		e, bad = decodeEntry(v)
		found[string(k[9:])] = e
		return bad == nil && len(found) <= fillMax
	})
	if err == nil {
		err = bad
	}
	if err != nil || len(found) > fillMax {
		return err
	}
	t.forgetNames(d)
	t.inodes.known.Add(int64(len(found)))
	d.known.m, d.known.all = found, true
	return nil
}

// know keeps an entry in memory; d.mu is held. When there is too much already,
// the directory that asks for more forgets what it knew.
func (t *Tree) know(d *inode, name string, e entry) {
	if t.inodes.known.Load() >= maxKnown {
		t.forgetNames(d)
	}
	if d.known.m == nil {
		d.known.m = map[string]entry{}
	}
	n := len(d.known.m)
	d.known.m[name] = e
	t.inodes.known.Add(int64(len(d.known.m) - n))
}

func (t *Tree) forgetNames(d *inode) {
	t.inodes.known.Add(-int64(len(d.known.m)))
	d.known = knownNames{}
}

// settleEntry makes an applied change of an entry known; dir.mu is held.
func (t *Tree) settleEntry(c entryChange) {
	c.dir.names = 0
	if !c.gone {
		t.know(c.dir, c.name, c.to)
	} else if _, ok := c.dir.known.m[c.name]; ok {
		delete(c.dir.known.m, c.name)
		t.inodes.known.Add(-1)
	}
}

// isEmpty reports whether a loaded directory has no entry; d.mu is held.
func (t *Tree) isEmpty(d *inode) (bool, error) {
	if d.known.all || len(d.known.m) > 0 {
		return len(d.known.m) == 0, nil
	}
	empty := true
	err := t.st.Scan(key(tableEntry, d.ino), key(tableEntry, d.ino+1), func(_, _ []byte) bool {
		empty = false
		return false
	})
	return empty, err
}
