package tree

import (
	"fmt"
	"slices"
	"testing"
)

// listStep lists some names after a cookie, as one request of the kernel does.
func (d *device) listStep(dir Ino, cookie uint64, step int) (names []string, next uint64) {
	d.t.Helper()
	next = cookie
	must(d.t, d.ReadDir(ctx, dir, cookie, func(e DirEntry) bool {
		if len(names) == step {
			return false
		}
		names, next = append(names, e.Name), e.Cookie
		return true
	}))
	return names, next
}

// Listing a directory that does not change reads each row once, in however small
// steps; and listing it again while all of it is kept, none.
func TestListingReadsRowsOnce(t *testing.T) {
	d := newDevice(t, Options{})
	list := func(dir Ino) (n int, rows int64) {
		before := d.st.Reads()
		for cookie := uint64(0); ; {
			names, next := d.listStep(dir, cookie, 7)
			if n += len(names); len(names) == 0 {
				return n, d.st.Reads() - before
			}
			cookie = next
		}
	}
	dir, _ := d.filled(2000)
	if n, rows := list(dir); n != 2000 || rows > 2010 {
		t.Errorf("read %d rows for %d names", rows, n)
	}
	small := d.mkdir(Root, "small")
	var inos []Ino
	for i := range listMore - 1 {
		inos = append(inos, d.write(small, fmt.Sprint(i), nil))
	}
	d.restart() // or the names would be in memory
	for _, ino := range inos {
		_, err := d.Attr(ctx, ino)
		must(t, err)
	}
	list(small)
	if n, rows := list(small); n != listMore-1 || rows != 0 {
		t.Errorf("the second time, read %d rows for %d names", rows, n)
	}
}

// What was read ahead is not told when a name has changed since.
func TestListingForgetsWhatChanged(t *testing.T) {
	d := newDevice(t, Options{})
	for what, change := range map[string]func(dir Ino){
		"removed":  func(dir Ino) { must(t, d.Unlink(ctx, dir, "file0000050")) },
		"renamed":  func(dir Ino) { must(t, d.Rename(ctx, dir, "file0000050", dir, "other", 0)) },
		"moved":    func(dir Ino) { must(t, d.Rename(ctx, dir, "file0000050", Root, "other", 0)) },
		"replaced": func(dir Ino) { must(t, d.Rename(ctx, dir, "file0000001", dir, "file0000050", 0)) },
	} {
		dir := d.mkdir(Root, what)
		inos := map[string]Ino{}
		for _, name := range names(60) {
			inos[name] = d.write(dir, name, nil)
		}
		_, cookie := d.listStep(dir, 0, 10)
		change(dir)
		must(t, d.ReadDir(ctx, dir, cookie, func(e DirEntry) bool {
			if e.Name == "file0000050" && e.Attr.Ino == inos[e.Name] {
				t.Errorf("%s, but listed", what)
			}
			return true
		}))
	}
}

// A directory is listed alike, cookies included, whether its names are in memory
// or not.
func TestListingFromMemory(t *testing.T) {
	d := newDevice(t, Options{})
	dir, list := d.filled(listMost + 10)
	for i, name := range list {
		switch {
		case i%7 == 0 || i > listMost:
			must(t, d.Unlink(ctx, dir, name))
		case i%5 == 0:
			must(t, d.Rename(ctx, dir, name, dir, fmt.Sprint("moved", i), 0))
		}
	}
	all := func() (out []string) {
		for _, step := range []int{1000, 13} {
			for cookie := uint64(0); ; {
				names, next := d.listStep(dir, cookie, step)
				if len(names) == 0 {
					break
				}
				cookie = next
				out = append(out, fmt.Sprint(names, cookie))
			}
		}
		return out
	}
	before := d.st.Reads()
	known := all()
	if n := d.st.Reads() - before; n != 0 {
		t.Errorf("read %d rows of a directory that was made in this run", n)
	}
	d.restart()
	if read := all(); !slices.Equal(known, read) {
		t.Errorf("from memory %v, from the tables %v", known, read)
	}
}
