package writeback_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/test/memswarm"
)

// restless is a filesystem one of whose files is written whenever it is read.
type restless struct {
	disk.FS
	write func() // while somebody reads; nil: it is at rest
}

type restlessFile struct {
	disk.File
	fs *restless
}

func (r *restless) Open(name string, flags int) (disk.File, error) {
	f, err := r.FS.Open(name, flags)
	return restlessFile{f, r}, err
}

func (f restlessFile) ReadAt(p []byte, off int64) (int, error) {
	if f.fs.write != nil {
		f.fs.write()
	}
	return f.File.ReadAt(p, off)
}

// movingDevice is a device whose files the kernel may write alone.
func movingDevice(t *testing.T) (*device, *restless) {
	fs := &restless{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), swarm: memswarm.New(9, 4, 7), fs: fs, pass: true}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	return d, fs
}

// passed puts content into a file as the kernel would, past the tree.
func passed(t testing.TB, f *tree.File, content string) {
	t.Helper()
	fd, ok := f.Passthrough()
	if !ok {
		t.Fatal("the file is not passed through")
	}
	if _, err := unix.Pwrite(fd, []byte(content), 0); err != nil {
		t.Fatal(err)
	}
}

// syncMoving commits while the file does not come to rest.
func (d *device) syncMoving(fs *restless, f *tree.File) {
	d.t.Helper()
	n := 0
	write := func() { n++; passed(d.t, f, fmt.Sprint("moving ", n)) }
	write()
	fs.write = write
	defer func() { fs.write = nil }()
	var moving *writeback.MovingError
	if err := d.engine.Sync(ctx); !errors.As(err, &moving) {
		d.t.Fatalf("the file came to rest: %v", err)
	}
}

// A small file that is written all the time keeps its last whole version, also
// under another name.
func TestMovingFileIsRenamed(t *testing.T) {
	for what, before := range map[string]string{"tiny": "whole", "empty": ""} {
		t.Run(what, func(t *testing.T) {
			d, fs := movingDevice(t)
			f, _, err := d.tree.Create(ctx, tree.Root, "a", 0o644, os.O_WRONLY, tree.Owner{})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Release()
			passed(t, f, before)
			d.sync()
			check(t, d.committed(), map[string]string{"a": before})
			if err := d.tree.Rename(ctx, tree.Root, "a", tree.Root, "b", 0); err != nil {
				t.Fatal(err)
			}
			d.syncMoving(fs, f)
			check(t, d.committed(), map[string]string{"b": before})
		})
	}
}

// What was committed with its record alone is not given to the kernel to be
// written over: nothing could say it again.
func TestTinyFileIsWrittenThrough(t *testing.T) {
	d, _ := movingDevice(t)
	d.put("a", []byte("whole"))
	d.sync()
	f := must(d.tree.Open(ctx, must(d.tree.Find(ctx, "a")).Ino, os.O_WRONLY|os.O_TRUNC))
	defer f.Release()
	if _, ok := f.Passthrough(); ok {
		t.Error("it is passed through")
	}
}

// A new file that never was at rest is in no commit, under none of its names;
// what its name led to before stays.
func TestMovingNewFile(t *testing.T) {
	d, fs := movingDevice(t)
	d.put("old", []byte("old"))
	d.sync()
	f, _, err := d.tree.Create(ctx, tree.Root, "new", 0o644, os.O_WRONLY, tree.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	if _, err := d.tree.Link(ctx, f.Ino(), tree.Root, "second"); err != nil {
		t.Fatal(err)
	}
	if err := d.tree.Rename(ctx, tree.Root, "new", tree.Root, "old", 0); err != nil {
		t.Fatal(err)
	}
	d.syncMoving(fs, f)
	check(t, d.committed(), map[string]string{"old": "old"})
	passed(t, f, "at rest at last")
	d.sync()
	check(t, d.committed(), map[string]string{"old": "at rest at last", "second": "at rest at last"})
}
