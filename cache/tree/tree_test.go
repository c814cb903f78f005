package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skep/cache/backing"
	"skep/cache/disk"
	"skep/cache/state"
)

var ctx = context.Background()

// device is a tree on a directory that can be crashed and opened again.
type device struct {
	t   testing.TB
	dir string
	st  *state.Store
	*Tree
	opt Options
	fs  disk.FS // nil is that of the machine
}

func newDevice(t testing.TB, opt Options) *device {
	d := &device{t: t, dir: t.TempDir(), opt: opt}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	return d
}

func (d *device) open() {
	d.t.Helper()
	if d.fs == nil {
		d.fs = disk.Local
	}
	st, err := state.OpenWith(filepath.Join(d.dir, "state"), state.Options{Disk: d.fs})
	if err != nil {
		d.t.Fatal(err)
	}
	files, err := backing.OpenOn(d.fs, filepath.Join(d.dir, "files"))
	if err != nil {
		d.t.Fatal(err)
	}
	opt := d.opt
	opt.State, opt.Backing, opt.Device = st, files, 1
	d.st = st
	if d.Tree, err = Open(opt); err != nil {
		d.t.Fatal(err)
	}
}

// restart opens the tree again as after kill -9: nothing of the old one was
// closed in order. The old store lets go of its lock only.
func (d *device) restart() {
	d.t.Helper()
	if err := d.st.Close(); err != nil {
		d.t.Fatal(err)
	}
	d.open()
}

func (d *device) write(dir Ino, name string, content []byte) Ino {
	d.t.Helper()
	f, a, err := d.Create(ctx, dir, name, 0o644, os.O_RDWR, Owner{})
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Release()
	if _, err := f.WriteAt(ctx, content, 0, false); err != nil {
		d.t.Fatal(err)
	}
	return a.Ino
}

func (d *device) read(ino Ino) []byte {
	d.t.Helper()
	f, err := d.Open(ctx, ino, os.O_RDONLY)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Release()
	a, err := d.Attr(ctx, ino)
	if err != nil {
		d.t.Fatal(err)
	}
	b := make([]byte, a.Size)
	if n, err := f.ReadAt(ctx, b, 0); err != nil || n != len(b) {
		d.t.Fatalf("read %d of %d: %v", n, len(b), err)
	}
	return b
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7+i>>8) ^ seed
	}
	return b
}

// Files of every size class come back after the process went, whether they
// were closed or not.
func TestContentSurvivesRestart(t *testing.T) {
	d := newDevice(t, Options{})
	sizes := map[string]int{"empty": 0, "tiny": 5, "inline": InlineMax, "grown": InlineMax + 1, "large": 3<<20 + 5}
	for name, n := range sizes {
		d.write(Root, name, pattern(n, 1))
	}
	f, open, err := d.Create(ctx, Root, "open", 0o600, os.O_RDWR, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(ctx, pattern(100_000, 2), 0, false); err != nil {
		t.Fatal(err)
	}
	d.restart()
	for name, n := range sizes {
		a, err := d.Lookup(ctx, Root, name)
		if err != nil || a.Size != int64(n) || !bytes.Equal(d.read(a.Ino), pattern(n, 1)) {
			t.Errorf("%s: size %d, %v", name, a.Size, err)
		}
	}
	if !bytes.Equal(d.read(open.Ino), pattern(100_000, 2)) {
		t.Error("the file that was open lost what was written")
	}
}

// What was written before a crash may go after it: a commit could not tell less
// than nothing.
func TestUsageAfterACrashIsNotNegative(t *testing.T) {
	d := newDevice(t, Options{})
	d.write(Root, "file", pattern(3<<20, 1))
	d.restart()
	if err := d.Unlink(ctx, Root, "file"); err != nil {
		t.Fatal(err)
	}
	if files, bytes := d.Usage(); files < 0 || bytes < 0 {
		t.Errorf("%d files with %d bytes", files, bytes)
	}
}

func TestNames(t *testing.T) {
	d := newDevice(t, Options{})
	dir, err := d.Mkdir(ctx, Root, "dir", 0o755, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	ino := d.write(dir.Ino, "a", []byte("x"))
	if _, err := d.Link(ctx, ino, Root, "b"); err != nil {
		t.Fatal(err)
	}
	if a, _ := d.Attr(ctx, ino); a.Nlink != 2 {
		t.Errorf("%d links", a.Nlink)
	}
	check := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	check(d.Rmdir(ctx, Root, "dir"), ErrNotEmpty)
	check(d.Rmdir(ctx, Root, "b"), ErrNotDir)
	check(d.Unlink(ctx, Root, "dir"), ErrIsDir)
	check(d.Rename(ctx, Root, "dir", dir.Ino, "loop", 0), ErrInvalid)
	check(d.Rename(ctx, Root, "b", dir.Ino, "a", 0), nil) // same inode
	check(d.Unlink(ctx, Root, "nope"), ErrNotFound)
	_, err = d.Mkdir(ctx, Root, string(make([]byte, 256)), 0, Owner{})
	check(err, ErrNameTooLong)
	check(d.Unlink(ctx, dir.Ino, "a"), nil)
	check(d.Rmdir(ctx, Root, "dir"), nil)
	if root, _ := d.Attr(ctx, Root); root.Nlink != 2 {
		t.Errorf("root has %d links", root.Nlink)
	}
	d.restart()
	if _, err := d.Lookup(ctx, Root, "b"); err != nil {
		t.Error(err)
	}
	if _, err := d.Lookup(ctx, Root, "dir"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestUnlinkedFileLivesWhileOpen(t *testing.T) {
	for _, size := range []int{10, 100_000} {
		d := newDevice(t, Options{})
		ino := d.write(Root, "f", pattern(size, 3))
		f, err := d.Open(ctx, ino, os.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Unlink(ctx, Root, "f"); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(ctx, []byte("!"), int64(size), false); err != nil {
			t.Fatal(err)
		}
		if got := d.read(ino); !bytes.Equal(got, append(pattern(size, 3), '!')) {
			t.Errorf("unlinked file of %d bytes reads wrong", size)
		}
		f.Release()
		d.Forget(ino)
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Attr(ctx, ino); !errors.Is(err, ErrStale) {
			t.Errorf("the inode is still there: %v", err)
		}
		_ = d.files.Each(func(n uint64) error { t.Errorf("backing file %d is still there", n); return nil })
	}
}

func TestReadDirStaysStable(t *testing.T) {
	d := newDevice(t, Options{})
	const n = 1000
	for i := range n {
		d.write(Root, fmt.Sprint("f", i), nil)
	}
	seen := map[string]int{}
	i := 0
	err := d.ReadDir(ctx, Root, 0, func(e DirEntry) bool {
		seen[e.Name]++
		if i%3 == 0 { // remove what was seen, add others
			if err := d.Unlink(ctx, Root, e.Name); err != nil {
				t.Fatal(err)
			}
			d.write(Root, "new"+e.Name, nil)
		}
		i++
		return i < 5*n
	})
	if err != nil {
		t.Fatal(err)
	}
	old := 0
	for name, times := range seen {
		if times != 1 {
			t.Errorf("%q came %d times", name, times)
		}
		if !strings.HasPrefix(name, "new") {
			old++
		}
	}
	if old != n {
		t.Errorf("%d of %d entries came", old, n)
	}
}

// A cut shows the tree as of its instant, contents included, whatever is
// written while the commit reads.
func TestCutDoesNotMove(t *testing.T) {
	d := newDevice(t, Options{})
	sizes := []int{100, InlineMax + 100, 2 << 20}
	var inos []Ino
	for i, n := range sizes {
		inos = append(inos, d.write(Root, string(rune('a'+i)), pattern(n, 1)))
	}
	c, err := d.Cut()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Cut(); !errors.Is(err, ErrBusy) {
		t.Errorf("a second cut: %v", err)
	}
	for i, ino := range inos {
		f, err := d.Open(ctx, ino, os.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(ctx, pattern(50, 9), 10, false); err != nil {
			t.Fatal(err)
		}
		n := int64(20)
		if i == 1 {
			n = 0
		}
		if _, err := d.SetAttr(ctx, ino, SetAttr{Size: &n}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(ctx, pattern(sizes[i]*2, 8), 0, false); err != nil {
			t.Fatal(err)
		}
		f.Release()
	}
	if err := d.Unlink(ctx, Root, "c"); err != nil {
		t.Fatal(err)
	}
	d.Forget(inos[2])
	var names []string
	if err := c.Marks(func(m Mark) error { names = append(names, m.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(names) != 4 { // the root, a, b, c
		t.Errorf("marks %q", names)
	}
	for i, n := range sizes {
		name := string(rune('a' + i))
		ino, ok, err := c.Entry(Root, name)
		if err != nil || !ok || ino != inos[i] {
			t.Fatalf("%s: %v, %v", name, ok, err)
		}
		in, ok, err := c.Inode(ino)
		if err != nil || !ok || !in.Dirty || in.Record.Size != int64(n) {
			t.Fatalf("%s: %+v, %v, %v", name, in, ok, err)
		}
		f, err := c.OpenFile(ctx, in, Whole)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, n)
		if err := f.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, pattern(n, 1)) {
			t.Errorf("%s is not as of the cut: %v", name, err)
		}
		if err := f.Taken(); err != nil {
			t.Error(err)
		}
		f.Close()
		if err := c.Settle(ctx, []Settled{{Ino: ino, Size: int64(n)}}); err != nil {
			t.Error(err)
		}
	}
	if err := c.ClearMarks(nil); err != nil {
		t.Fatal(err)
	}
	c.Close()
	c, err = d.Cut()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	names = nil
	_ = c.Marks(func(m Mark) error { names = append(names, m.Name); return nil })
	if len(names) != 3 { // a and b changed again, c is gone
		t.Errorf("marks of the second cut: %q", names)
	}
	for i := range 2 {
		in, ok, err := c.Inode(inos[i])
		if err != nil || !ok || !in.Dirty || in.Record.Size != int64(2*sizes[i]) {
			t.Errorf("%+v, %v, %v", in, ok, err)
		}
	}
}

func TestUntouchedFileIsCleanAfterACommit(t *testing.T) {
	d := newDevice(t, Options{})
	ino := d.write(Root, "f", pattern(3<<20, 1))
	c, err := d.Cut()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Settle(ctx, []Settled{{Ino: ino, Size: 3 << 20}}); err != nil {
		t.Fatal(err)
	}
	if err := c.ClearMarks(nil); err != nil {
		t.Fatal(err)
	}
	c.Close()
	f, _ := d.Open(ctx, ino, os.O_RDWR)
	if _, err := f.WriteAt(ctx, []byte("edit"), 1<<20+7, false); err != nil {
		t.Fatal(err)
	}
	f.Release()
	if c, err = d.Cut(); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in, _, _ := c.Inode(ino)
	in.row.content.Codec = 0x55 // as if the first commit had given it a root
	cf, err := c.OpenFile(ctx, in, Whole)
	if err != nil {
		t.Fatal(err)
	}
	defer cf.Close()
	if got := cf.Changed(); len(got) != 1 || got[0] != (backing.Range{From: 1 << 20, To: 2 << 20}) {
		t.Errorf("changed: %v", got)
	}
}

func TestInodeNumbersAreNotUsedAgain(t *testing.T) {
	d := newDevice(t, Options{})
	seen := map[Ino]bool{}
	for range 3 {
		for i := range 10 {
			ino := d.write(Root, "f", nil)
			if seen[ino] {
				t.Fatalf("inode %d again", ino)
			}
			seen[ino] = true
			if err := d.Unlink(ctx, Root, "f"); err != nil {
				t.Fatal(i, err)
			}
		}
		d.restart()
	}
}

func FuzzDecodeRow(f *testing.F) {
	r := row{flags: 3, mode: modeReg | 0o644, name: "x", size: 4}
	f.Add(r.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRow(b); err == nil && r.size < 0 {
			t.Fatal("negative size")
		}
		_, _ = decodeEntry(b)
		_, _, _ = decodeCookie(b)
		_, _ = decodeXattrs(b)
	})
}

func BenchmarkCreate(b *testing.B) {
	d := newDevice(b, Options{})
	content := pattern(4096, 1)
	i := 0
	for b.Loop() {
		i++
		f, _, err := d.Create(ctx, Root, string([]byte{'f', byte(i >> 16), byte(i>>8) | 1, byte(i) | 1}), 0o644, os.O_WRONLY, Owner{})
		if err != nil {
			continue
		}
		_, _ = f.WriteAt(ctx, content, 0, false)
		f.Release()
	}
}

// TestStatFS: what is told is never nothing, and adds up.
func TestStatFS(t *testing.T) {
	var used, free int64
	d := newDevice(t, Options{Capacity: func() (total, avail int64) { return used + free, free }})
	d.create(Root, "file").Release()
	for _, c := range []struct{ used, free, wantFree int64 }{{0, 0, 4096}, {5000, 0, 4096}, {5000, 1, 4096}, {5000, 4096, 4096}, {0, 40_000, 40_000}} {
		used, free = c.used, c.free
		s, err := d.StatFS(ctx)
		must(t, err)
		inodes := uint64(c.wantFree / 4096)
		if s.Free != c.wantFree || s.Avail != c.wantFree || s.Total != c.used+c.wantFree || s.FreeFiles != inodes || s.Files != 1+inodes {
			t.Errorf("%+v: %+v", c, s)
		}
	}
}
