package writeback_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/test/memswarm"
)

// unreadable is a filesystem whose files cannot be read from an offset on while it fails.
type unreadable struct {
	disk.FS
	fails atomic.Bool
	from  int64
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
	if f.fs.fails.Load() && off >= f.fs.from {
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

// A file of several names that was tiny, and cannot be read now, holds up nothing else where
// the newest commit, whose head could not be published at once, has it as it is since.
func TestTinyLinkedFileOfAHeadThatWasNotPublished(t *testing.T) {
	fs := &unreadable{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), swarm: memswarm.New(9, 4, 7), fs: fs}
	away := false
	d.sink = d.swarm
	d.publish = func(ctx context.Context, h commit.Head) error {
		if away {
			away = false
			return errors.New("the keepers are away for a moment")
		}
		return d.swarm.Publish(ctx, h)
	}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	d.put("f", []byte("tiny"))
	d.link("f", "g")
	d.sync()
	d.put("f", bytes.Repeat([]byte("grown"), 50_000))
	away = true
	if err := d.engine.Sync(ctx); err == nil {
		t.Fatal("published to nobody")
	}
	fs.fails.Store(true)
	d.put("f", bytes.Repeat([]byte("other"), 50_000))
	d.put("else", []byte("else"))
	for range 2 {
		_ = d.engine.Sync(ctx)
	}
	if got := d.committed(); got["else"] != "else" {
		t.Errorf("%d files are in the newest commit, and not the one that can be read", len(got))
	}
}
