package tree

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// knownIsTrue checks that what a directory knows is what the tables say.
func (d *device) knownIsTrue(dir Ino) {
	d.t.Helper()
	in, _ := d.inodes.find(dir)
	if in == nil {
		return
	}
	defer d.release(in)
	inTables := map[string]Ino{}
	must(d.t, d.ReadDir(ctx, dir, 0, func(e DirEntry) bool { inTables[e.Name] = e.Attr.Ino; return true }))
	for name, e := range in.known.m {
		if inTables[name] != e.ino {
			d.t.Errorf("%s: known as %d, is %d", name, e.ino, inTables[name])
		}
	}
	if in.known.all && len(in.known.m) != len(inTables) {
		d.t.Errorf("knows %d names as all, there are %d", len(in.known.m), len(inTables))
	}
}

// Names that many change at once end up in memory as they do in the tables, and
// no two of those who change them wait for each other.
func TestKnownNames(t *testing.T) {
	d := newDevice(t, Options{})
	dirs := []Ino{Root, d.mkdir(Root, "a"), d.mkdir(Root, "b")}
	dirs = append(dirs, d.mkdir(dirs[1], "c"))
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 1))
			for range 400 {
				d.anyChange(r, dirs)
			}
		})
	}
	all.Wait()
	for _, dir := range dirs {
		d.knownIsTrue(dir)
	}
}

// anyChange does one thing to one of few names; that it cannot be done is fine.
func (d *device) anyChange(r *rand.Rand, dirs []Ino) {
	some := func() (Ino, string) { return dirs[r.IntN(len(dirs))], fmt.Sprint("n", r.IntN(6)) }
	dir, name := some()
	dir2, name2 := some()
	var err error
	switch r.IntN(7) {
	case 0, 1:
		_, err = d.Mknod(ctx, dir, name, 0o644, 0, Owner{})
	case 2:
		_, err = d.Mkdir(ctx, dir, name, 0o755, Owner{})
	case 3:
		err = d.Unlink(ctx, dir, name)
	case 4:
		err = d.Rmdir(ctx, dir, name)
	case 5:
		err = d.Rename(ctx, dir, name, dir2, name2, uint32(r.IntN(3)))
	case 6:
		_, err = d.Lookup(ctx, dir, name)
	}
	refused := []error{ErrExists, ErrNotFound, ErrIsDir, ErrNotDir, ErrNotEmpty, ErrInvalid}
	for _, e := range refused {
		if err == nil || errors.Is(err, e) {
			return
		}
	}
	d.t.Error(err)
}

// A directory that was not made in this run is known after some questions, and
// then answers without the tables.
func TestDirectoryIsReadAsAWhole(t *testing.T) {
	d := newDevice(t, Options{})
	dir, list := d.filled(100)
	d.restart()
	for _, name := range list[:askedOften+1] {
		_, err := d.Lookup(ctx, dir, name)
		must(t, err)
	}
	in, _ := d.inodes.find(dir)
	defer d.release(in)
	if !in.known.all || len(in.known.m) != len(list) {
		t.Errorf("%d of %d names are known, all: %v", len(in.known.m), len(list), in.known.all)
	}
	d.knownIsTrue(dir)
}

// What is kept in memory does not grow with what was looked at.
func TestMemoryOfNamesIsBounded(t *testing.T) {
	d := newDevice(t, Options{})
	for range 3 {
		in, err := d.directory(ctx, d.mkdir(Root, fmt.Sprint("d", d.inodes.known.Load())))
		must(t, err)
		in.mu.Lock()
		for i := range maxKnown {
			d.know(in, fmt.Sprint(i), entry{ino: 7})
		}
		in.mu.Unlock()
		d.release(in)
	}
	if n := d.inodes.known.Load(); n > maxKnown {
		t.Errorf("%d names are known", n)
	}
	for i := range 2 * usualIdle {
		in := &inode{ino: Ino(1000 + i)}
		d.inodes.add(in)
		d.release(in)
	}
	n := 0
	for i := range d.inodes.shards {
		n += len(d.inodes.shards[i].m)
	}
	if n > usualIdle {
		t.Errorf("%d inodes are in memory", n)
	}
	if n := d.inodes.known.Load(); n < 0 {
		t.Errorf("%d names are known", n)
	}
}

// An inode that was read from the tables does not replace a newer one that came
// and went meanwhile.
func TestStaleInodeIsNotTaken(t *testing.T) {
	d := newDevice(t, Options{})
	ino := d.write(Root, "file", []byte("x"))
	s := d.inodes.shard(ino)
	drop := func() {
		s.mu.Lock()
		d.inodes.drop(s, s.m[ino])
		s.mu.Unlock()
	}
	drop()
	_, dropped := d.inodes.find(ino)
	old, err := d.readRow(ctx, ino)
	must(t, err)
	mode := uint32(0o600)
	_, err = d.SetAttr(ctx, ino, SetAttr{Mode: &mode})
	must(t, err)
	drop()
	if _, ok := d.inodes.take(&inode{ino: ino, row: old}, dropped); ok {
		t.Error("took what is out of date")
	}
	if a, err := d.Attr(ctx, ino); err != nil || a.Mode != unix.S_IFREG|mode {
		t.Errorf("mode %o, %v", a.Mode, err)
	}
}

// Listing a large directory in small steps, as the kernel does, reads each row
// about once, whatever comes and goes meanwhile.
func TestListingInSteps(t *testing.T) {
	const files, step = 3000, 25
	d := newDevice(t, Options{})
	dir, list := d.filled(files)
	d.restart()
	seen, cookie := map[string]int{}, uint64(0)
	before := d.st.Reads()
	for more := true; more; {
		n := 0
		must(t, d.ReadDir(ctx, dir, cookie, func(e DirEntry) bool {
			if n++; n > step {
				return false
			}
			seen[e.Name]++
			cookie = e.Cookie
			return true
		}))
		more = n > step
		name := fmt.Sprint("new", len(seen))
		d.write(dir, name, nil)
		must(t, d.Unlink(ctx, dir, name))
	}
	for _, name := range list {
		if seen[name] != 1 {
			t.Fatalf("%s was listed %d times", name, seen[name])
		}
	}
	if n := d.st.Reads() - before; n > 4*files {
		t.Errorf("read %d rows for %d entries", n, files)
	}
}
