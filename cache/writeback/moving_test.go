package writeback_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/commit"
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

// syncMoving commits while the file is written, and flushed by who writes it.
func (d *device) syncMoving(fs *restless, f *tree.File) {
	d.t.Helper()
	w := must(d.tree.Open(ctx, f.Ino(), os.O_WRONLY|os.O_SYNC))
	defer w.Release()
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

// A file that never is at rest, or in order, keeps its last whole version, also under
// another name.
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

// A new file that never was at rest, or in order, is in no commit, under none of its names;
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

// A log that grows whenever it is read, and a file of a megabyte and more that is
// written then, and flushed in between, are in each commit.
func TestMovingFilesAreTaken(t *testing.T) {
	for _, flushes := range []bool{false, true} {
		d, fs := movingDevice(t)
		f, _, err := d.tree.Create(ctx, tree.Root, "log", 0o644, os.O_WRONLY|os.O_TRUNC, tree.Owner{})
		if err != nil {
			t.Fatal(err)
		}
		var written strings.Builder
		written.WriteString(strings.Repeat("begin", 300_000))
		passed(t, f, written.String())
		fd, _ := f.Passthrough()
		var mu sync.Mutex
		fs.write = func() {
			mu.Lock()
			defer mu.Unlock()
			must(unix.Pwrite(fd, []byte("line"), int64(written.Len())))
			written.WriteString("line")
			if flushes {
				go func() { _ = f.Sync(ctx, true) }()
			}
		}
		for range 3 {
			least := written.Len()
			d.sync()
			got := d.committed()["log"]
			if !strings.HasPrefix(written.String(), got) || len(got) < least {
				t.Errorf("flushed %v: the commit has %d bytes of a log that had %d", flushes, len(got), least)
			}
			if in := d.engine.Progress().InMotion; !slices.Equal(in, []string{"/log"}) {
				t.Errorf("flushed %v: written while they were taken: %q", flushes, in)
			}
		}
		fs.write = nil
		f.Release()
		d.sync()
		check(t, d.committed(), map[string]string{"log": written.String()})
		if in := d.engine.Progress().InMotion; len(in) > 0 {
			t.Errorf("after it came to rest: %q", in)
		}
	}
}

// passedBesideAReader is a file that the kernel writes alone, of which a commit has the
// beginning, and which somebody else reads.
func passedBesideAReader(d *device, content string) (w, r *tree.File) {
	d.t.Helper()
	w, a, err := d.tree.Create(ctx, tree.Root, "f", 0o644, os.O_WRONLY|os.O_EXCL, tree.Owner{})
	if err != nil {
		d.t.Fatal(err)
	}
	passed(d.t, w, content)
	if r, err = d.tree.Open(ctx, a.Ino, os.O_RDONLY); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(r.Release)
	return w, r
}

// What the kernel wrote alone is committed when the writer has closed the file,
// though somebody else goes on reading it.
func TestWrittenBesideAReader(t *testing.T) {
	d, _ := movingDevice(t)
	w, _ := passedBesideAReader(d, "first, and not for long")
	d.sync()
	passed(t, w, "second")
	w.Release()
	d.sync()
	check(t, d.committed(), map[string]string{"f": "second and not for long"})
}

// Nor does a commit that had read the file before it was written take it for clean.
func TestWrittenWhileACommitIsPublished(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: swarm, pass: true}
	var meanwhile func()
	d.publish = func(ctx context.Context, h commit.Head) error {
		err := swarm.Publish(ctx, h)
		if meanwhile != nil {
			meanwhile()
			meanwhile = nil
		}
		return err
	}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	w, _ := passedBesideAReader(d, "first, and not for long")
	meanwhile = func() {
		passed(t, w, "second")
		if err := w.Sync(ctx, false); err != nil {
			t.Error(err)
		}
		w.Release()
	}
	d.sync()
	if meanwhile != nil {
		t.Fatal("nothing was published")
	}
	d.sync()
	check(t, d.committed(), map[string]string{"f": "second and not for long"})
}
