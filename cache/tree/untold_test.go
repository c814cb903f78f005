package tree

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/backing"
	"skep/cache/disk"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// leave drops an inode from memory if nobody uses it, as 32 Ki others would.
func (d *device) leave(ino Ino) {
	in, _ := d.inodes.find(ino)
	if in == nil {
		return
	}
	d.release(in)
	s := d.inodes.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.refs.n.Load() == 0 {
		d.inodes.drop(s, in)
	}
}

// deviceOn is a device on a disk, with a swarm that has what commits took.
func deviceOn(t *testing.T, fs disk.FS) (*device, *committed) {
	c := &committed{files: map[link.Link][]byte{}}
	d := &device{t: t, dir: t.TempDir(), fs: fs, opt: Options{Content: c}}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	return d, c
}

func takesChunk(f *CutFile, i int64) bool {
	at := i * dag.ChunkSize
	return slices.ContainsFunc(f.Changed(), func(r backing.Range) bool { return r.From <= at && r.To > at })
}

// crowdedOpen is a disk on which too many files are open, once it is full.
type crowdedOpen struct {
	disk.FS
	full bool
}

func (d *crowdedOpen) Open(name string, flags int) (disk.File, error) {
	if d.full {
		return nil, unix.EMFILE
	}
	return d.FS.Open(name, flags)
}

// What changed is in the next commit also where ranges could not be recorded for a moment,
// and the file left memory then, or the process ended in order.
func TestChangedIsTakenThoughItWasNotRecorded(t *testing.T) {
	jour, emf := &fullJournal{FS: disk.Local}, &crowdedOpen{FS: disk.Local}
	for name, x := range map[string]struct {
		fs   disk.FS
		full *bool
		end  bool
	}{"full journal": {jour, &jour.full, false}, "full journal, end in order": {jour, &jour.full, true}, "too many open": {emf, &emf.full, false}} {
		t.Run(name, func(t *testing.T) {
			d, c := deviceOn(t, x.fs)
			ino := c.gone(t, d, pattern(8<<20, 1))
			f, err := d.Open(ctx, ino, os.O_RDWR)
			must(t, err)
			b := make([]byte, 1<<20)
			_, err = f.ReadAt(ctx, b, 4<<20)
			must(t, err)
			must(t, d.Sync()) // recorded: it is here
			writeAt(t, f, []byte("newer"), 4<<20)
			_, err = f.ReadAt(ctx, b, 0) // fetches
			must(t, err)
			f.Release()
			*x.full = true
			d.recordFetched()
			*x.full = false
			if x.end {
				must(t, d.SyncAll())
				d.Close()
				d.restart()
			} else {
				must(t, d.flushAll())
				d.leave(ino)
			}
			cf := d.openCut(ino)
			if !takesChunk(cf, 4) {
				t.Errorf("a commit takes %v", cf.Changed())
			}
		})
	}
}

// … and where it was closed without room in the journal, before a commit that failed.
func TestChangedIsTakenThoughClosingFailed(t *testing.T) {
	for i := range 4 {
		partly, touched := i%2 == 1, i/2 == 1
		full := &fullJournal{FS: disk.Local}
		d, c := deviceOn(t, full)
		ino := d.write(Root, "f", pattern(8<<20, 1))
		c.take(t, d, ino)
		if partly {
			evict(t, d, ino)
			g, err := d.Open(ctx, ino, os.O_RDONLY)
			must(t, err)
			_, err = g.ReadAt(ctx, make([]byte, 7<<20), 0)
			must(t, err)
			g.Release()
			must(t, d.Sync())
		}
		for i, off := range []int64{0, 4 << 20} {
			f, err := d.Open(ctx, ino, os.O_RDWR)
			must(t, err)
			writeAt(t, f, []byte("newer"), off)
			full.full = i == 1
			f.Release()
		}
		full.full = false
		if touched { // as rsync does
			mode := uint32(0o600)
			_, err := d.SetAttr(ctx, ino, SetAttr{Mode: &mode})
			must(t, err)
		}
		cut, err := d.Cut() // of a commit that fails, as nobody answers
		must(t, err)
		cut.Close()
		must(t, d.flushAll())
		d.leave(ino)
		cf := d.openCut(ino)
		if !takesChunk(cf, 4) {
			t.Errorf("partly %v, touched %v: a commit takes %v", partly, touched, cf.Changed())
		}
	}
}

// … or after it.
func TestChangedIsTakenThoughClosingFailedAfterACut(t *testing.T) {
	for _, end := range []bool{false, true} {
		full := &fullJournal{FS: disk.Local}
		d, c := deviceOn(t, full)
		ino := d.write(Root, "f", pattern(8<<20, 1))
		c.take(t, d, ino)
		f, err := d.Open(ctx, ino, os.O_RDWR)
		must(t, err)
		writeAt(t, f, []byte("newer"), 0)
		f.Release()
		f, err = d.Open(ctx, ino, os.O_RDWR)
		must(t, err)
		writeAt(t, f, []byte("newer"), 4<<20)
		cut, err := d.Cut() // of a commit that fails, as nobody answers
		must(t, err)
		cut.Close()
		full.full = true
		f.Release()
		full.full = false
		must(t, d.SyncAll())
		if end {
			d.Close()
			d.restart()
		} else {
			must(t, d.flushAll())
			d.leave(ino)
		}
		cf := d.openCut(ino)
		if !takesChunk(cf, 4) {
			t.Errorf("end %v: a commit takes %v", end, cf.Changed())
		}
	}
}

// Of a file that is partly here, and deleted during a commit, this fetches no more than
// what changed.
func TestLittleIsTakenOfWhatWasDeleted(t *testing.T) {
	const size = 32 << 20
	d, c := evictingDevice(t, Options{})
	ino := c.gone(t, d, pattern(size, 1))
	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(t, err)
	writeAt(t, f, []byte("newer"), 3)
	f.Release()
	must(t, d.SyncAll())
	d.rest()
	cut, err := d.Cut()
	must(t, err)
	defer cut.Close()
	in, _, err := cut.Inode(ino)
	must(t, err)
	must(t, d.Unlink(ctx, Root, "f"))
	d.Forget(ino)
	cf, err := cut.OpenFile(ctx, in, Whole)
	must(t, err)
	defer cf.Close()
	got := cf.Changed()
	if n := got[0].To - got[0].From; n > 1<<20 {
		t.Errorf("of a file that was deleted a commit fetches %v", got)
	}
}

// What was cut off does not come back by a write behind it that failed, nor when the
// tables are told of that size, and the process is killed.
func TestCutOffStaysOff(t *testing.T) {
	for what, tell := range map[string]func(d *device, ino Ino) error{
		"nothing": func(*device, Ino) error { return nil },
		"a cut of a commit that fails": func(d *device, _ Ino) error {
			cut, err := d.Cut()
			if err == nil {
				cut.Close()
			}
			return err
		},
		"a change of the mode": func(d *device, ino Ino) error {
			mode := uint32(0o600)
			_, err := d.SetAttr(ctx, ino, SetAttr{Mode: &mode})
			return err
		},
	} {
		full := &fullJournal{FS: disk.Local}
		d, c := deviceOn(t, full)
		ino := c.gone(t, d, pattern(100_000, 1))
		f, err := d.Open(ctx, ino, os.O_RDWR)
		must(t, err)
		size := int64(133)
		_, err = d.SetAttr(ctx, ino, SetAttr{Size: &size, File: f})
		must(t, err)
		full.full = true
		if _, err := f.WriteAt(ctx, []byte("newer"), 50_000, false); err == nil {
			t.Fatal("it was written")
		}
		full.full = false
		want := slices.Concat(pattern(100_000, 1)[:size], make([]byte, 50_000-size), []byte("newer"))
		if got := d.read(ino); !bytes.Equal(got, want) {
			t.Errorf("%d bytes, and not what was written", len(got))
		}
		must(t, tell(d, ino))
		d.restart()
		if got := d.read(ino); !bytes.Equal(got, want) {
			t.Errorf("after %s and a kill: %d bytes, and not what was written", what, len(got))
		}
	}
}
