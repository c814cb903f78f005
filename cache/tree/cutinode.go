package tree

import (
	"fmt"

	"skep/chunker/dag"
)

// Inode is what a commit needs of an inode as of the cut.
type Inode struct {
	// Record is the inode's record; of a dirty file Size and Content are
	// still to be filled in, of a directory Content is that of the newest
	// commit.
	Record dag.Inode
	Parent Ino
	Name   string // in Parent
	// Multi says that the record belongs into the table of linked inodes.
	Multi bool
	// Dirty says that a file's content changed since Record.Content.
	Dirty bool
	row   row
}

// Format prints the name alone, for every verb, so that no key of the content
// shows.
func (i Inode) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "inode of %q", i.Name) }

// Committed reports whether some commit has the file.
func (in *Inode) Committed() bool { return in.row.has(flagCommitted) }

// TinyInCommit reports whether the newest commit that has a file has its content in the
// record alone: nothing here knows that any more once the file has changed.
func (in *Inode) TinyInCommit() bool {
	return in.Committed() && in.row.content.IsZero() && in.row.contentSize > 0
}

// Partial reports whether some of a file's content may be with holders alone.
func (in *Inode) Partial() bool { return in.row.has(flagPartial) }

// Loaded reports whether all entries of a directory are in the tables.
func (in *Inode) Loaded() bool { return in.row.has(flagLoaded) }

// CommittedSize is the size of the file in the newest commit that has it.
func (in *Inode) CommittedSize() int64 { return in.row.contentSize }

// Entry returns the inode that a name led to, if there was one.
func (c *Cut) Entry(dir Ino, name string) (Ino, bool, error) {
	b, ok, err := c.view.Get(entryKey(dir, name))
	if !ok || err != nil {
		return 0, false, err
	}
	e, err := decodeEntry(b)
	return e.ino, err == nil, err
}

// Names calls fn for the names in a loaded directory, in order.
func (c *Cut) Names(dir Ino, fn func(name string)) error {
	return c.view.Scan(key(tableEntry, dir), key(tableEntry, dir+1), func(k, _ []byte) bool {
		fn(string(k[9:]))
		return true
	})
}

// Inode returns an inode; ok is false if there was none.
func (c *Cut) Inode(ino Ino) (Inode, bool, error) {
	b, ok, err := c.view.Get(key(tableInode, ino))
	if !ok || err != nil {
		return Inode{}, false, err
	}
	r, err := decodeRow(b)
	if err != nil {
		return Inode{}, false, fmt.Errorf("inode %d: %w", ino, err)
	}
	out := Inode{Parent: r.parent, Name: r.name, Multi: r.has(flagMulti), Dirty: r.isFile() && r.has(flagDirty), row: r}
	out.Record = dag.Inode{ID: uint64(ino), Mode: r.mode, UID: r.uid, GID: r.gid, Nlink: r.nlink, Size: r.size,
		Mtime: dag.Time(r.mtime), Ctime: dag.Time(r.ctime), Btime: dag.Time(r.btime), Rdev: uint64(r.rdev), Content: r.content}
	if err := c.fillSmall(ino, &out); err != nil {
		return Inode{}, false, fmt.Errorf("inode %d: %w", ino, err)
	}
	return out, true, nil
}

// fillSmall adds what lies in rows of its own: the target of a symbolic link,
// tiny content, attributes.
func (c *Cut) fillSmall(ino Ino, in *Inode) error {
	r := &in.row
	if r.mode&modeType == modeLnk || r.has(flagInline) && r.content.IsZero() && r.size <= dag.MaxInline && r.size > 0 {
		b, _, err := c.view.Get(key(tableInline, ino))
		if err != nil {
			return err
		}
		in.Record.Inline = b
	}
	if r.isDir() {
		in.Record.Size = 0
	}
	b, ok, err := c.view.Get(key(tableXattrs, ino))
	if !ok || err != nil {
		return err
	}
	in.Record.Xattrs, err = decodeXattrs(b)
	return err
}
