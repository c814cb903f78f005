package crash

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/fs/mount"
	"skep/test/model"
	"skep/test/served"
)

// TestMappedBeyondTheServer: of a file that is passed through, what a program stores
// into a mapping, or writes to a descriptor, is in the file also when the server was
// killed meanwhile and another one serves the drive; and commits take it, whenever it
// comes.
func TestMappedBeyondTheServer(t *testing.T) {
	needsFUSE(t)
	if !mount.MayPassthrough() || !served.LinuxFrom(6, 9) {
		t.Skip("no files are passed through here")
	}
	d, err := NewServed(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer d.End()
	path := filepath.Join(d.Root, "f")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{'a'}, 1<<20)
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	pages, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	store := func(at int, b byte) { pages[at], want[at] = b, b }
	same := func(when string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: %v, %v", when, model.DifferBytes(got, want), err)
		}
	}
	store(100, 'b')
	d.Kill()
	store(200, 'c')
	if _, err := f.WriteAt([]byte{'d'}, 300); err == nil { // on some kernels
		want[300] = 'd'
	}
	if err := f.Close(); err != nil {
		t.Logf("closing what the dead server served: %v", err)
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	same("served again")
	store(400, 'e')
	same("stored meanwhile")
	do := func(kind model.Kind) {
		t.Helper()
		if r := d.Do(model.Op{Kind: kind, Path: "f"}); r.Errno != 0 {
			t.Fatalf("%v: %v", kind, r)
		}
	}
	do(model.Commit)
	store(500, 'f')
	do(model.Evict) // which must not
	store(600, 'g')
	same("after a commit")
	if err := unix.Munmap(pages); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		do(model.Commit)
		do(model.Evict)
		if n := backingFiles(t, d); n == 0 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("%d backing files are left a minute after nobody maps the file any more", n)
		}
	}
	same("fetched")
}

// backingFiles counts those that a drive has.
func backingFiles(t *testing.T, d *Served) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(d.conf.Home, "files", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}
