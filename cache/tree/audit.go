package tree

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// Audit compares the rows of names, cookies, inodes, content and backing files with
// each other, and tells what does not fit, with the path that it concerns. looked,
// if not nil, is called for each row. Nothing may change the tables meanwhile.
func (t *Tree) Audit(ctx context.Context, found func(path, what string), looked func()) error {
	a := auditor{ctx: ctx, t: t, found: found, looked: looked, names: map[Ino]uint32{}}
	if r, err := t.rowNow(Root); err == nil {
		a.unknown = !r.has(flagLoaded)
	}
	for _, step := range []struct {
		table byte
		check func(k, v []byte) error
	}{
		{tableEntry, a.entry}, {tableCookie, a.cookie}, {tableInode, a.inode}, {tableBacking, a.backing},
		{tableXattrs, a.belongs("attributes")}, {tableRanges, a.belongs("ranges")}, {tableInline, a.content},
	} {
		if err := a.each(step.table, step.check); err != nil {
			return fmt.Errorf("audit of table %c: %w", step.table, err)
		}
	}
	return nil
}

type auditor struct {
	ctx    context.Context
	t      *Tree
	found  func(path, what string)
	looked func()

	names   map[Ino]uint32 // of files with several
	unknown bool           // some directories are not here, with the names in them
}

func (a *auditor) each(table byte, check func(k, v []byte) error) error {
	var bad error
	err := a.t.st.Scan([]byte{table}, []byte{table + 1}, func(k, v []byte) bool {
		if bad = a.ctx.Err(); bad != nil {
			return false
		}
		if a.looked != nil {
			a.looked()
		}
		if len(k) < 9 {
			a.found("/", fmt.Sprintf("a row of table %c has a key of %d bytes", table, len(k)))
			return true
		}
		bad = check(k, v)
		return bad == nil
	})
	return errors.Join(err, bad)
}

func inoOf(k []byte) Ino { return Ino(binary.BigEndian.Uint64(k[1:9])) }

// row returns an inode's row; ok is false where there is none that can be read.
func (a *auditor) row(ino Ino) (r row, ok bool, err error) {
	r, err = a.t.rowNow(ino)
	if isStale(err) || errors.Is(err, errRow) {
		return r, false, nil
	}
	return r, err == nil, err
}

// entry checks that a name is in a directory, leads to an inode of its type, and
// is in the directory's order.
func (a *auditor) entry(k, v []byte) error {
	dir, name := inoOf(k), string(k[9:])
	path := a.within(dir, name)
	e, err := decodeEntry(v)
	if err != nil {
		a.found(path, err.Error())
		return nil
	}
	listed, ok, err := a.t.st.Get(cookieKey(dir, e.cookie))
	if err != nil {
		return err
	}
	if le, n, bad := decodeCookie(listed); !ok || bad != nil || n != name || le.ino != e.ino {
		a.found(path, "is there, and no listing shows it")
	}
	d, ok, err := a.row(dir)
	if err != nil {
		return err
	}
	if !ok || !d.isDir() {
		a.found(path, fmt.Sprintf("is in inode %d, which is no directory", uint64(dir)))
	}
	return a.leadsTo(path, dir, name, e)
}

// leadsTo checks the inode that a name leads to.
func (a *auditor) leadsTo(path string, dir Ino, name string, e entry) error {
	in, ok, err := a.row(e.ino)
	switch {
	case err != nil:
		return err
	case !ok:
		a.found(path, fmt.Sprintf("leads to inode %d, which is not there", uint64(e.ino)))
		return nil
	case in.has(flagMulti):
		a.names[e.ino]++
	case in.parent != dir || in.name != name:
		a.found(path, fmt.Sprintf("leads to inode %d, which has one name, and another", uint64(e.ino)))
	}
	if in.mode&modeType != e.typ {
		a.found(path, fmt.Sprintf("is of type %o in its directory, and of %o itself", e.typ>>12, in.mode>>12))
	}
	a.unknown = a.unknown || in.isDir() && !in.has(flagLoaded)
	return nil
}

// cookie checks that what a listing shows can be looked up.
func (a *auditor) cookie(k, v []byte) error {
	dir := inoOf(k)
	e, name, err := decodeCookie(v)
	if err != nil || len(k) != 17 {
		a.found(a.t.Path(dir), "a listing of it has a malformed row")
		return nil
	}
	named, ok, err := a.t.st.Get(entryKey(dir, name))
	if err != nil {
		return err
	}
	if found, bad := decodeEntry(named); !ok || bad != nil || found.ino != e.ino || found.cookie != binary.BigEndian.Uint64(k[9:]) {
		a.found(a.within(dir, name), "is listed, and cannot be looked up")
	}
	return nil
}

// inode checks that an inode is where it says it is, and has the backing file
// that it says it has.
func (a *auditor) inode(k, v []byte) error {
	ino := inoOf(k)
	r, err := decodeRow(v)
	if err != nil {
		a.found(a.t.Path(ino), err.Error())
		return nil
	}
	if ino > Links && r.nlink > 0 && !r.has(flagMulti) {
		b, ok, err := a.t.st.Get(entryKey(r.parent, r.name))
		if err != nil {
			return err
		}
		if e, bad := decodeEntry(b); !ok || bad != nil || e.ino != ino {
			a.found(a.within(r.parent, r.name), fmt.Sprintf("inode %d says to be there, and is not", uint64(ino)))
		}
	}
	if err := a.links(ino, r); err != nil {
		return err
	}
	if !r.has(flagBacking) {
		return nil
	}
	owner, ok, err := a.t.st.Get(backingKey(r.backing))
	if err == nil && (!ok || Ino(valueUint64(owner)) != ino) {
		a.found(a.t.Path(ino), fmt.Sprintf("its backing file %x is not known to be its own", r.backing))
	}
	if err == nil {
		a.length(ino, r)
	}
	return err
}

// length checks that a backing file of which all is here, and in no commit yet, is as
// long as it was left: nothing else tells what is missing of it.
func (a *auditor) length(ino Ino, r row) {
	if !r.has(flagDirty) || r.has(flagPartial) {
		return
	}
	if st, err := a.t.files.Stat(r.backing); err == nil && st.Size < r.size {
		a.found(a.t.Path(ino), fmt.Sprintf("has %d bytes here, where %d were left, and is in no commit as it was", st.Size, r.size))
	}
}

// links checks how many links an inode counts, as far as they are here.
func (a *auditor) links(ino Ino, r row) error {
	want, most := r.nlink, r.nlink
	switch {
	case r.has(flagUnread) || ino == Links:
	case r.isDir() && r.has(flagLoaded) && r.nlink > 0:
		subs, err := a.subdirectories(ino)
		if err != nil {
			return err
		}
		want, most = 2+subs, 2+subs
	case r.has(flagMulti):
		want, most = a.names[ino], a.names[ino]
		if a.unknown {
			most = maxLinks
		}
	case !r.isDir():
		most = 1
		want = min(r.nlink, 1) // none, while it is open without a name
	}
	if r.nlink < want || r.nlink > most {
		a.found(a.t.Path(ino), fmt.Sprintf("counts %d links, and there are %d", r.nlink, want))
	}
	return nil
}

// subdirectories counts the directories in a directory.
func (a *auditor) subdirectories(dir Ino) (n uint32, err error) {
	err = a.t.st.Scan(key(tableEntry, dir), key(tableEntry, dir+1), func(_, v []byte) bool {
		if e, bad := decodeEntry(v); bad == nil && e.typ == modeDir {
			n++
		}
		return true
	})
	return n, err
}

// content checks that the content of a small file belongs to an inode, or is known
// to go.
func (a *auditor) content(k, v []byte) error {
	if _, left, err := a.t.st.Get(key(tableLeft, inoOf(k))); err != nil || left {
		return err
	}
	return a.belongs("content")(k, v)
}

// backing checks that a backing file's inode has it.
func (a *auditor) backing(k, v []byte) error {
	ino, n := Ino(valueUint64(v)), uint64(inoOf(k))
	r, ok, err := a.row(ino)
	if err == nil && (!ok || !r.has(flagBacking) || r.backing != n) {
		a.found(a.t.Path(ino), fmt.Sprintf("backing file %x is called its own, and is not", n))
	}
	return err
}

// belongs checks that a row beside an inode's own has that.
func (a *auditor) belongs(what string) func(k, v []byte) error {
	return func(k, _ []byte) error {
		_, ok, err := a.row(inoOf(k))
		if err == nil && !ok {
			a.found(fmt.Sprintf("inode %d", uint64(inoOf(k))), "is not there, and has "+what)
		}
		return err
	}
}

// within is a path for messages.
func (a *auditor) within(dir Ino, name string) string {
	path := a.t.Path(dir)
	if path == "/" {
		path = ""
	}
	return path + "/" + name
}
