package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Audit compares the rows of names, cookies, inodes and backing files with each
// other, and tells what does not fit, with the path that it concerns. Nothing may
// change the tables meanwhile.
func (t *Tree) Audit(found func(path, what string)) error {
	a := auditor{t: t, found: found}
	for _, step := range []struct {
		table byte
		check func(k, v []byte) error
	}{
		{tableEntry, a.entry}, {tableCookie, a.cookie}, {tableInode, a.inode}, {tableBacking, a.backing},
		{tableXattrs, a.belongs("attributes")}, {tableRanges, a.belongs("ranges")}, // content of removed files is left for later
	} {
		if err := a.each(step.table, step.check); err != nil {
			return fmt.Errorf("audit of table %c: %w", step.table, err)
		}
	}
	return nil
}

type auditor struct {
	t     *Tree
	found func(path, what string)
}

func (a *auditor) each(table byte, check func(k, v []byte) error) error {
	var bad error
	err := a.t.st.Scan([]byte{table}, []byte{table + 1}, func(k, v []byte) bool {
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
	in, ok, err := a.row(e.ino)
	switch {
	case err != nil:
		return err
	case !ok:
		a.found(path, fmt.Sprintf("leads to inode %d, which is not there", uint64(e.ino)))
	case in.mode&modeType != e.typ:
		a.found(path, fmt.Sprintf("is of type %o in its directory, and of %o itself", e.typ>>12, in.mode>>12))
	}
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
	if !r.has(flagBacking) {
		return nil
	}
	owner, ok, err := a.t.st.Get(backingKey(r.backing))
	if err == nil && (!ok || Ino(valueUint64(owner)) != ino) {
		a.found(a.t.Path(ino), fmt.Sprintf("its backing file %x is not known to be its own", r.backing))
	}
	return err
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
