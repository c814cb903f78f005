package tree

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"skep/cache/state"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// flights lets one caller do what several want.
type flights struct {
	mu sync.Mutex
	m  map[Ino]chan struct{} // guarded by mu; closed when the flight ended
}

// join returns nil to the one who is to do it, else the channel to wait for.
func (f *flights) join(ino Ino) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ch, ok := f.m[ino]; ok {
		return ch
	}
	if f.m == nil {
		f.m = map[Ino]chan struct{}{}
	}
	f.m[ino] = make(chan struct{})
	return nil
}

func (f *flights) done(ino Ino) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.m[ino])
	delete(f.m, ino)
}

// load brings the entries of a committed directory into the tables. Rows that
// are there already, of entries and of inodes, are newer than the commit and
// stay; so does the absence of those that a mark says were removed.
func (t *Tree) load(ctx context.Context, d *inode) error {
	for {
		wait := t.loading.join(d.ino)
		if wait == nil {
			break
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
		d.mu.Lock()
		loaded := d.row.has(flagLoaded)
		d.mu.Unlock()
		if loaded {
			return nil
		}
	}
	defer t.loading.done(d.ino)
	for {
		l := loader{t: t, dir: d, root: d.committedDir()}
		err := l.load(ctx)
		if err == nil || l.root == d.committedDir() || ctx.Err() != nil {
			return err
		}
		// A commit took it meanwhile, and gave up the blocks, and the marks, before.
	}
}

// committedDir is the root of a directory in the newest commit that has it.
func (in *inode) committedDir() link.Link {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.row.content
}

// loader writes the entries of one committed directory into the tables, some
// at a time.
type loader struct {
	t    *Tree
	dir  *inode
	root link.Link
	buf  []loaded
	size int // of what the records in buf hold beside fields of fixed size
}

type loaded struct {
	name string
	rec  dag.Inode
}

// errMoved says that a directory is not as in this commit any more.
var errMoved = errors.New("a newer commit has the directory")

func (l *loader) load(ctx context.Context) error {
	if l.root.IsZero() {
		return l.flush(true)
	}
	if l.t.content == nil {
		return fmt.Errorf("directory %d: %w", l.dir.ino, ErrUnreachable)
	}
	err := l.t.content.Dir(ctx, l.root, l.entry)
	if err == nil {
		err = l.flush(true)
	}
	if err != nil {
		err = fmt.Errorf("directory %q: %w", l.t.Path(l.dir.ino), err)
	}
	return err
}

// How much is written in one batch: so many entries, or such as hold so many bytes. One
// with all the attributes that it may have is less than a record of the journal takes.
const (
	loadStep  = 512
	loadBytes = 1 << 20
)

func (l *loader) entry(name string, rec dag.Inode) error {
	l.buf = append(l.buf, loaded{name, rec})
	l.size += len(rec.Inline) + xattrsSize(rec.Xattrs)
	if len(l.buf) < loadStep && l.size < loadBytes {
		return nil
	}
	return l.flush(false)
}

// flush writes what has gathered. All its cookies come from the directory's
// row, so that a load that was broken off and begun again stays right: a name
// that has a row keeps it. What was removed since is told by marks, which are
// there as long as no newer commit has the directory.
func (l *loader) flush(last bool) error {
	c := l.t.begin()
	l.t.names.Lock()
	defer l.t.names.Unlock()
	de := c.edit(l.dir)
	if de.row.content != l.root {
		c.abandon()
		return errMoved
	}
	for _, e := range l.buf {
		if err := c.insertLoaded(de, e); err != nil {
			c.abandon()
			return err
		}
	}
	l.buf, l.size = l.buf[:0], 0
	if last {
		de.local().flags |= flagLoaded
	}
	return c.apply()
}

func (c *change) insertLoaded(dir *edit, e loaded) error {
	t := c.t
	if checkName(e.name) != nil || e.rec.ID <= uint64(Links) {
		return fmt.Errorf("entry of directory %d: %w", dir.in.ino, ErrCorrupt)
	}
	if _, marked, err := t.st.Get(markKey(dir.in.ino, e.name)); err != nil || marked {
		return err // changed or removed here since
	}
	if _, there, err := t.st.Get(entryKey(dir.in.ino, e.name)); err != nil || there {
		return err
	}
	ino := Ino(e.rec.ID)
	cookie := dir.row.cookie
	dir.local().cookie++
	ent := entry{ino: ino, typ: e.rec.Mode & modeType, cookie: cookie}
	c.b.Put(entryKey(dir.in.ino, e.name), ent.encode())
	c.b.Put(cookieKey(dir.in.ino, cookie), append(ent.encode(), e.name...))
	if e.rec.Linked {
		return c.insertUnread(ino, e.rec.Mode, dir.in.ino, e.name)
	}
	return c.insertRecord(e.rec, dir.in.ino, e.name)
}

// insertUnread makes the row of an inode whose record, in the table of linked
// inodes, is read when somebody asks for it.
func (c *change) insertUnread(ino Ino, mode uint32, dir Ino, name string) error {
	if _, there, err := c.t.st.Get(key(tableInode, ino)); err != nil || there {
		return err
	}
	r := row{flags: flagUnread | flagMulti, mode: mode, parent: dir, name: name}
	c.b.Put(key(tableInode, ino), r.encode())
	return nil
}

// insertRecord makes the row of an inode from its committed record, unless
// there is one.
func (c *change) insertRecord(rec dag.Inode, dir Ino, name string) error {
	ino := Ino(rec.ID)
	if _, there, err := c.t.st.Get(key(tableInode, ino)); err != nil || there {
		return err
	}
	r := rowOf(rec)
	r.parent, r.name = dir, name
	c.b.Put(key(tableInode, ino), r.encode())
	c.came += r.here()
	if r.has(flagInline) && len(rec.Inline) > 0 || r.mode&modeType == modeLnk {
		c.b.Put(key(tableInline, ino), rec.Inline)
	}
	if len(rec.Xattrs) > 0 {
		c.b.Put(key(tableXattrs, ino), encodeXattrs(rec.Xattrs))
	}
	return nil
}

// rowOf is the row of an inode that is as its committed record says.
func rowOf(rec dag.Inode) row {
	r := row{mode: rec.Mode, nlink: rec.Nlink, uid: rec.UID, gid: rec.GID, rdev: uint32(rec.Rdev), size: rec.Size,
		mtime: Time(rec.Mtime), ctime: Time(rec.Ctime), btime: Time(rec.Btime), atime: Time(rec.Mtime),
		content: rec.Content, contentSize: rec.Size}
	switch {
	case r.isDir():
		r.cookie = firstCookie
	case r.isFile():
		r.flags |= flagCommitted
		if rec.Content.IsZero() {
			r.flags |= flagInline // the whole content is in the record
		}
	}
	return r
}

// loadLinked makes the row of an inode with several links from the commit.
func (t *Tree) loadLinked(ctx context.Context, ino Ino) (row, error) {
	if t.content == nil {
		return row{}, ErrUnreachable
	}
	rec, err := t.content.Linked(ctx, uint64(ino))
	if err != nil {
		return row{}, fmt.Errorf("inode %d: %w", ino, err)
	}
	t.names.Lock() // no name of it may go meanwhile
	defer t.names.Unlock()
	old, err := t.rowNow(ino)
	if err != nil || !old.has(flagUnread) {
		return old, err
	}
	r := rowOf(rec)
	r.flags |= flagMulti
	r.parent, r.name = old.parent, old.name
	var b state.Batch
	b.Put(key(tableInode, ino), r.encode())
	if len(rec.Inline) > 0 {
		b.Put(key(tableInline, ino), rec.Inline)
	}
	if len(rec.Xattrs) > 0 {
		b.Put(key(tableXattrs, ino), encodeXattrs(rec.Xattrs))
	}
	came := r.here()
	if _, err := t.count.apply(t.st, &b, 0, tally{here: came}); err != nil {
		return row{}, noSpace(err)
	}
	t.here64.Add(came)
	return r, nil
}
