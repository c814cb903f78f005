package tree

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"skep/cache/disk"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// remote is a device with a file of some chunks none of which is here.
func remote(t *testing.T, chunks int) (d *device, fs *flushes, c *committed, ino Ino, content []byte) {
	c = &committed{files: map[link.Link][]byte{}}
	fs = &flushes{FS: disk.Local}
	d = &device{t: t, dir: t.TempDir(), fs: fs, opt: Options{Content: c}}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	content = pattern(chunks*dag.ChunkSize, 1)
	ino = c.gone(t, d, content)
	return d, fs, c, ino, content
}

// readChunk reads a chunk of a file, and tells how many were fetched for it.
func (d *device) readChunk(c *committed, ino Ino, content []byte, i int) int {
	d.t.Helper()
	before := c.hasRead()
	f, err := d.Open(ctx, ino, os.O_RDONLY)
	must(d.t, err)
	defer f.Release()
	p := make([]byte, dag.ChunkSize)
	n, err := f.ReadAt(ctx, p, int64(i*dag.ChunkSize))
	must(d.t, err)
	if want := content[i*dag.ChunkSize:][:dag.ChunkSize]; !bytes.Equal(p[:n], want) {
		d.t.Errorf("chunk %d came back different", i)
	}
	return c.hasRead() - before
}

// While what was fetched is flushed, more is fetched and read. A crash afterwards
// finds here what was flushed, and nothing else.
func TestFetchingWhileFlushing(t *testing.T) {
	d, fs, c, ino, content := remote(t, 4)
	reading, err := d.Open(ctx, ino, os.O_RDONLY)
	must(t, err)
	d.readChunk(c, ino, content, 0)
	during := func(i int) func() {
		return func() {
			read := make(chan int, 1)
			go func() { read <- d.readChunk(c, ino, content, i) }()
			select {
			case n := <-read:
				if n != 1 {
					t.Errorf("chunk %d was there", i)
				}
			case <-time.After(time.Minute):
				t.Error("a reader waits for the flush")
			}
		}
	}
	fs.fileHook = during(2)
	must(t, d.Sync())
	fs.fileHook = nil
	reading.Release()
	d.restart()
	if n := d.readChunk(c, ino, content, 0); n != 0 {
		t.Error("what was flushed was fetched again")
	}
	_, err = d.Open(ctx, ino, os.O_RDONLY)
	must(t, err)
	fs.fileHook = during(2)
	d.readChunk(c, ino, content, 3)
	must(t, d.Sync())
	fs.fileHook = nil
	must(t, d.Sync()) // takes in what came late
	d.restart()       // with the file open
	for _, i := range []int{0, 2, 3} {
		if n := d.readChunk(c, ino, content, i); n != 0 {
			t.Errorf("chunk %d was fetched again", i)
		}
	}
	if n := d.readChunk(c, ino, content, 1); n != 1 {
		t.Error("a chunk that nobody read was there")
	}
	must(t, d.Sync())
	d.restart()
	if a, err := d.Attr(ctx, ino); err != nil || d.readChunk(c, ino, content, 1) != 0 {
		t.Errorf("a file that is here whole was fetched again: %+v, %v", a, err)
	}
}

// A file of which something is fetched while it is looked what there is to record is
// recorded the next time: nobody adds to a list that somebody goes through, which the race
// detector would see, and a file that is added is let go of once.
func TestFetchedWhileRecording(t *testing.T) {
	d, _, _, ino, _ := remote(t, 1)
	f, err := d.Open(ctx, ino, os.O_RDONLY)
	must(t, err)
	defer f.Release()
	before := f.in.refs.n.Load()
	done := make(chan struct{})
	var recording sync.WaitGroup
	recording.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				d.recordFetched()
			}
		}
	})
	for range 10_000 {
		d.enlistFetched(f.in)
	}
	close(done)
	recording.Wait()
	d.recordFetched()
	if n := f.in.refs.n.Load(); n != before {
		t.Errorf("the file is held %d times, not %d", n, before)
	}
}

// What was asked for before a file was emptied and written anew does not land on
// what was written.
func TestWrittenAnewWhileFetching(t *testing.T) {
	d, _, c, ino, _ := remote(t, 2)
	want := pattern(dag.ChunkSize/2, 2)
	reading, err := d.Open(ctx, ino, os.O_RDONLY)
	must(t, err)
	defer reading.Release()
	c.before = func(int64) {
		c.before = nil
		f, err := d.Open(ctx, ino, os.O_RDWR|os.O_TRUNC)
		must(t, err)
		defer f.Release()
		writeAt(t, f, want, 0)
	}
	_, err = reading.ReadAt(ctx, make([]byte, 100), 0)
	must(t, err)
	got := make([]byte, len(want))
	if n, err := reading.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got[:n], want) {
		t.Errorf("what was written is gone: %d bytes, %v", n, err)
	}
}

// gated is a disk that reports what is written to the journal beside a cut of it.
type gated struct {
	disk.FS
	t *testing.T
	d *device
}

type gatedFile struct {
	disk.File
	g       *gated
	journal bool
}

func (g *gated) Open(name string, flags int) (disk.File, error) {
	f, err := g.FS.Open(name, flags)
	return gatedFile{f, g, strings.HasPrefix(filepath.Base(filepath.Dir(name)), "journal")}, err
}

func (f gatedFile) WriteAt(p []byte, off int64) (int, error) {
	if d := f.g.d; f.journal && d != nil && d.gate.TryLock() {
		d.gate.Unlock()
		f.g.t.Error("a row is written, and the journal could be cut")
	}
	return f.File.WriteAt(p, off)
}

// No row about what is fetched comes behind a cut that does not know of it.
func TestFetchedRowsAwaitACut(t *testing.T) {
	g := &gated{FS: disk.Local, t: t}
	d, c := deviceOn(t, g)
	small, large := pattern(5000, 1), pattern(40_000, 2)
	for i, read := range []func(ino Ino){
		func(ino Ino) { d.read(ino) },
		func(ino Ino) { must(t, d.Fetch(ctx, ino)) },
		func(ino Ino) {
			size := int64(100)
			_, err := d.SetAttr(ctx, ino, SetAttr{Size: &size})
			must(t, err)
		},
		func(ino Ino) { // without room for the whole
			d.SetRoom(noRoom{})
			defer d.SetRoom(boundless{})
			size := int64(100)
			_, err := d.SetAttr(ctx, ino, SetAttr{Size: &size})
			must(t, err)
		},
	} {
		for j, content := range [][]byte{small, large} {
			ino := d.write(Root, fmt.Sprint(i, j), content)
			c.take(t, d, ino)
			_, err := d.EvictSmall(ctx, ino)
			must(t, err)
			_, err = d.Evict(ctx, ino, false)
			must(t, errors.Join(err, d.FinishEvictions(ctx)))
			g.d = d
			read(ino)
			g.d = nil
		}
	}
}
