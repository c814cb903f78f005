package crash

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/test/memdisk"
	"skep/test/model"
	"skep/test/served"
)

// more is what the server of a drive has to know besides.
type more struct {
	Holders string // directory with the contents of commits
	Without omission
}

// Serve serves a drive on the disk of this machine, to the end of the process.
func Serve(c served.Config) {
	var m more
	if err := json.Unmarshal(c.More, &m); err != nil {
		panic(fmt.Sprintf("BUG: crash: %v", err))
	}
	h, err := openHolders(m.Holders)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	d := &armed{FS: disk.Local, without: m.Without}
	c.State = stateOptions(d)
	c.Content = h
	c.Command = func(t *tree.Tree, st *state.Store, line string) error { return obey(t, st, h, d, line) }
	served.Main(c)
}

// obey does what a Served asks for.
func obey(t *tree.Tree, st *state.Store, h *holders, d *armed, line string) error {
	var n int64
	if _, err := fmt.Sscanf(line, "kill %d", &n); err == nil {
		d.left.Store(n)
		return nil
	}
	name, path, _ := strings.Cut(line, " ")
	op := model.Op{Path: path}
	switch name {
	case model.Sync.String():
		return t.SyncAll()
	case model.Commit.String():
		op.Kind = model.Commit
	case model.Evict.String():
		op.Kind = model.Evict
	case model.Forget.String():
		op.Kind = model.Forget
	default:
		return fmt.Errorf("cannot %q", line)
	}
	return maintain(t, st, h, op)
}

// omission is what a broken server does not do to its disk, though it thinks so:
// a kind of thing, and below which directory.
type omission string

// The kinds.
const (
	flushFile = "flush-file "
	flushDir  = "flush-dir "
	writeFile = "write-file "
)

// at returns the omission where the directory is below another.
func (o omission) at(home string) omission {
	if kind, below, ok := strings.Cut(string(o), " "); ok {
		return omission(kind + " " + filepath.Join(home, below))
	}
	return o
}

// is reports whether this is what is left out.
func (o omission) is(kind, path string) bool {
	below, ok := strings.CutPrefix(string(o), kind)
	return ok && memdisk.Event{Path: path}.Below(below)
}

// armed is a disk that kills the process where it is about to do something that
// outlives it.
type armed struct {
	disk.FS
	left    atomic.Int64 // how many events are still to come; 0: it does not kill
	without omission
}

func (a *armed) event() {
	if a.left.Load() > 0 && a.left.Add(-1) == 0 {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
}

func (a *armed) Open(name string, flags int) (disk.File, error) {
	if flags&os.O_CREATE != 0 {
		a.event()
	}
	f, err := a.FS.Open(name, flags)
	if err != nil {
		return nil, err
	}
	return armedFile{f, a, name}, nil
}

func (a *armed) Rename(from, to string) error { a.event(); return a.FS.Rename(from, to) }
func (a *armed) Remove(name string) error     { a.event(); return a.FS.Remove(name) }

func (a *armed) SyncDir(dir string) error {
	a.event()
	if a.without.is(flushDir, dir) {
		return nil
	}
	return a.FS.SyncDir(dir)
}

func (a *armed) SyncAll(dir string) error { a.event(); return a.FS.SyncAll(dir) }

type armedFile struct {
	disk.File
	a    *armed
	name string
}

func (f armedFile) WriteAt(p []byte, off int64) (int, error) {
	f.a.event()
	if f.a.without.is(writeFile, f.name) {
		return len(p), nil
	}
	return f.File.WriteAt(p, off)
}

func (f armedFile) Truncate(size int64) error { f.a.event(); return f.File.Truncate(size) }

func (f armedFile) Allocate(mode uint32, off, n int64) error {
	f.a.event()
	return f.File.Allocate(mode, off, n)
}

func (f armedFile) Sync() error     { return f.flush(f.File.Sync) }
func (f armedFile) Datasync() error { return f.flush(f.File.Datasync) }

func (f armedFile) flush(do func() error) error {
	f.a.event()
	if f.a.without.is(flushFile, f.name) {
		return nil
	}
	return do()
}
