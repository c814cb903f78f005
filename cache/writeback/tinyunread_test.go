package writeback_test

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
	"skep/cache/writeback"
	"skep/test/memswarm"
)

// unreadable is a filesystem whose files cannot be read while it fails.
type unreadable struct {
	disk.FS
	fails atomic.Bool
}

type unreadableFile struct {
	disk.File
	fs *unreadable
}

func (u *unreadable) Open(name string, flags int) (disk.File, error) {
	f, err := u.FS.Open(name, flags)
	return unreadableFile{f, u}, err
}

func (f unreadableFile) ReadAt(p []byte, off int64) (int, error) {
	if f.fs.fails.Load() {
		return 0, unix.EIO
	}
	return f.File.ReadAt(p, off)
}

// A file that was tiny in the newest commit, and has grown into one that the disk cannot
// read, stays as it was there, and keeps nothing else back.
func TestTinyFileThatGrewUnreadable(t *testing.T) {
	fs := &unreadable{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), swarm: memswarm.New(9, 4, 7), fs: fs}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	d.put("f", []byte("tiny"))
	d.sync()
	grown := bytes.Repeat([]byte("grown"), 50_000)
	d.put("f", grown)
	d.put("else", []byte("else"))
	fs.fails.Store(true)
	for range 2 {
		var unread *writeback.UnreadError
		if err := d.engine.Sync(ctx); !errors.As(err, &unread) {
			t.Fatalf("sync: %v", err)
		}
	}
	check(t, d.committed(), map[string]string{"f": "tiny", "else": "else"})
	fs.fails.Store(false)
	d.sync()
	check(t, d.committed(), map[string]string{"f": string(grown), "else": "else"})
	d.audit()
}
