package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/cache/backing"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// committed keeps the contents of commits, as holders would.
type committed struct {
	before func(i int64) // chunk i is read; nil: nothing

	mu    sync.Mutex // guards both
	files map[link.Link][]byte
	reads int
}

// hasRead is how many chunks were read.
func (c *committed) hasRead() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reads
}

func (c *committed) Dir(context.Context, link.Link, func(string, dag.Inode) error) error { return nil }
func (c *committed) Linked(context.Context, uint64) (dag.Inode, error) {
	return dag.Inode{}, errors.New("no links")
}
func (c *committed) ReadChunk(_ context.Context, f dag.File, i int64) ([]byte, error) {
	if c.before != nil {
		c.before(i)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	b, ok := c.files[f.Root]
	if !ok {
		return nil, ErrLost
	}
	return bytes.Clone(b[i*dag.ChunkSize : min(int64(len(b)), (i+1)*dag.ChunkSize)]), nil
}

func (c *committed) LendChunk(ctx context.Context, f dag.File, i int64, use func([]byte)) error {
	b, err := c.ReadChunk(ctx, f, i)
	if err == nil {
		use(b)
		clear(b) // it is not the borrower's any more
	}
	return err
}

// take makes a commit of some files.
func (c *committed) take(t testing.TB, d *device, inos ...Ino) {
	t.Helper()
	c.takeBy(t, d, Whole, inos...)
}

func (c *committed) takeBy(t testing.TB, d *device, how Reading, inos ...Ino) {
	t.Helper()
	d.rest()
	cut, err := d.Cut()
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	var done []Settled
	for _, ino := range inos {
		in, _, err := cut.Inode(ino)
		if err != nil {
			t.Fatal(err)
		}
		f, err := cut.OpenFile(ctx, in, how)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, f.Size)
		if err := errors.Join(f.ReadAt(ctx, b, 0), f.Taken()); err != nil {
			t.Fatal(err)
		}
		f.Close()
		c.mu.Lock()
		l := link.Link{Codec: link.DagPB, Hash: link.Hash{byte(ino), byte(len(c.files)), byte(len(c.files) >> 8)}}
		c.files[l] = b
		c.mu.Unlock()
		done = append(done, Settled{Ino: ino, Content: l, Size: int64(len(b))})
	}
	if err := errors.Join(cut.Settle(ctx, done), cut.ClearMarks(nil)); err != nil {
		t.Fatal(err)
	}
}

// gone is a file of the root, f, that is committed and not here any more.
func (c *committed) gone(t testing.TB, d *device, content []byte) Ino {
	t.Helper()
	ino := d.write(Root, "f", content)
	c.take(t, d, ino)
	evict(t, d, ino)
	return ino
}

func evictingDevice(t testing.TB, opt Options) (*device, *committed) {
	c := &committed{files: map[link.Link][]byte{}}
	opt.Content = c
	return newDevice(t, opt), c
}

// openCut opens a file as a commit that is made now would, until the test ends.
func (d *device) openCut(ino Ino) *CutFile {
	d.t.Helper()
	d.rest()
	cut, err := d.Cut()
	must(d.t, err)
	d.t.Cleanup(cut.Close)
	in, _, err := cut.Inode(ino)
	must(d.t, err)
	cf, err := cut.OpenFile(ctx, in, Whole)
	must(d.t, err)
	d.t.Cleanup(cf.Close)
	return cf
}

func evict(t testing.TB, d *device, ino Ino) int64 {
	t.Helper()
	n, err := d.Evict(ctx, ino, false)
	if err == nil {
		err = d.FinishEvictions(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// onDisk is what the backing files really take.
func onDisk(t testing.TB, d *device) (n int64) {
	t.Helper()
	err := d.files.Each(func(number uint64) error {
		st, err := d.files.Stat(number)
		n += st.Blocks * 512
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Nothing is freed, whoever looks for what could be, before it is on the disk that it is
// not here: power loss would bring back the row by which it is.
func TestSweepFreesNothingTooEarly(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	ino := d.write(Root, "f", pattern(3*dag.ChunkSize, 1))
	c.take(t, d, ino)
	must(t, d.Sync())
	must(t, d.DropChunk(ctx, ino, 1))
	before := onDisk(t, d)
	must(t, d.Sweep(ctx))
	if n := onDisk(t, d); n != before {
		t.Errorf("%d bytes of %d are left, and power loss would call all of them here", n, before)
	}
	must(t, d.FinishEvictions(ctx))
	if n := onDisk(t, d); n != before-dag.ChunkSize {
		t.Errorf("%d bytes of %d are left in the end", n, before)
	}
}

// Nor does it of a file that has left memory meanwhile, of which it is not known any more
// which row came last, also where somebody has looked at it since.
func TestSweepOfWhatLeftMemoryFlushes(t *testing.T) {
	for _, back := range []bool{false, true} {
		d, c := evictingDevice(t, Options{})
		ino := d.write(Root, "f", pattern(3*dag.ChunkSize, 1))
		c.take(t, d, ino)
		must(t, d.Sync())
		must(t, d.DropChunk(ctx, ino, 1))
		in, _ := d.inodes.find(ino)
		d.inodes.remove(in)
		if back {
			_, err := d.Attr(ctx, ino)
			must(t, err)
		}
		must(t, d.Sweep(ctx))
		if !d.st.Durable(d.st.Seq()) {
			t.Errorf("freed what the journal on the disk calls here, in memory again: %v", back)
		}
	}
}

// What a commit has taken goes and comes back; the totals tell what the disk
// does.
func TestEvictedContentComesBack(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	want := pattern(3<<20+5, 1)
	ino := d.write(Root, "f", want)
	if n := evict(t, d, ino); n != 0 {
		t.Fatalf("%d bytes that no commit has were let go of", n)
	}
	c.take(t, d, ino)
	before := onDisk(t, d)
	if all, unsynced := d.Local(); all != before || unsynced != 0 {
		t.Errorf("counted %d and %d unsynced, the disk has %d", all, unsynced, before)
	}
	blocks := attr(t, d, ino).Blocks
	if n := evict(t, d, ino); n != before {
		t.Errorf("%d bytes came free, not %d", n, before)
	}
	if n := onDisk(t, d); n != 0 {
		t.Errorf("%d bytes are still on the disk", n)
	}
	if all, _ := d.Local(); all != 0 {
		t.Errorf("%d bytes are counted", all)
	}
	if got := attr(t, d, ino).Blocks; got != blocks {
		t.Errorf("%d blocks, %d before", got, blocks)
	}
	d.restart()
	if !bytes.Equal(d.read(ino), want) {
		t.Error("came back different")
	}
	// Whole again, it may be written at once.
	f, _ := d.Open(ctx, ino, os.O_RDWR)
	defer f.Release()
	if _, err := f.WriteAt(ctx, []byte("edit"), 5, false); err != nil {
		t.Fatal(err)
	}
	copy(want[5:], "edit")
	if !bytes.Equal(d.read(ino), want) {
		t.Error("different after an edit")
	}
}

func attr(t testing.TB, d *device, ino Ino) Attr {
	t.Helper()
	a, err := d.Attr(ctx, ino)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Of a large file the end goes first, some at a time; what is written
// meanwhile stays.
func TestLargeFilesGoInParts(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	want := pattern(80<<20, 3)
	ino := d.write(Root, "f", want)
	c.take(t, d, ino)
	var left []int64
	for range 3 {
		if n := evict(t, d, ino); n == 0 {
			t.Fatal("nothing more was let go of")
		}
		left = append(left, onDisk(t, d))
		if all, _ := d.Local(); all != left[len(left)-1] {
			t.Errorf("counted %d, the disk has %d", all, left[len(left)-1])
		}
	}
	for i, want := range []int64{48 << 20, 16 << 20, 0} {
		// The local filesystem may need some room to know what is where.
		if left[i] < want || left[i] > want+64<<10 {
			t.Errorf("left after each step: %v", left)
		}
	}
	d.restart()
	if !bytes.Equal(d.read(ino), want) {
		t.Fatal("came back different")
	}
	c.take(t, d)
	// A range that comes back, or is written, before its bytes are gone.
	if n, err := d.Evict(ctx, ino, false); err != nil || n == 0 {
		t.Fatalf("%d, %v", n, err)
	}
	f, err := d.Open(ctx, ino, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4)
	if _, err := f.ReadAt(ctx, p, 70<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(ctx, []byte("edit"), 60<<20, false); err != nil {
		t.Fatal(err)
	}
	copy(want[60<<20:], "edit")
	if err := d.FinishEvictions(ctx); err != nil {
		t.Fatal(err)
	}
	f.Release()
	d.restart()
	if !bytes.Equal(d.read(ino), want) {
		t.Error("different after a write in between")
	}
}

// What the disk does not free of one file keeps none of another, and goes when it can.
func TestFreeingFails(t *testing.T) {
	d, c, s := newSpoilt(t, Options{})
	var inos []Ino
	for i := range 3 {
		inos = append(inos, d.write(Root, fmt.Sprint(i), pattern(34<<20, byte(i))))
	}
	c.take(t, d, inos...)
	before := onDisk(t, d)
	var freed int64
	for _, ino := range inos {
		n, err := d.Evict(ctx, ino, false)
		must(t, err)
		freed += n
	}
	s.unfreed.Store(d.numberOf(inos[0]))
	must(t, d.FinishEvictions(ctx))
	// The local filesystem may need some room to know what is where.
	const some = 64 << 10
	if n, want := before-onDisk(t, d), freed*2/3; n < want-some || n > want+some {
		t.Errorf("%d bytes are freed, want %d", n, want)
	}
	if all, _ := d.Local(); all != onDisk(t, d) || d.Going() != 0 {
		t.Errorf("%d bytes count, and %d as going, the disk has %d", all, d.Going(), onDisk(t, d))
	}
	s.unfreed.Store(0)
	must(t, d.FinishEvictions(ctx))
	if n := before - onDisk(t, d); n < freed-some || n > freed+some {
		t.Errorf("%d bytes are freed in the end, want %d", n, freed)
	}
}

// Of a file of any size the last data is found at once; when there is no more, its holes
// stay, unless they take room.
func TestLastData(t *testing.T) {
	const size, middle = 1 << 42, 1 << 40
	d := newDevice(t, Options{})
	f := d.create(Root, "image")
	defer f.Release()
	all := int64(size)
	_, err := d.SetAttr(ctx, f.Ino(), SetAttr{Size: &all})
	must(t, err)
	in, list := f.in, []backing.Range{{From: 0, To: size}}
	want := func(from, to, least int64) {
		t.Helper()
		in.mu.Lock()
		defer in.mu.Unlock()
		d.countLocal(in)
		ranges, n := d.lastData(in, list)
		isMuch := n > least+256<<10 || least == 0 && n > 0 // the local filesystem has blocks of some size
		if n < least || isMuch || len(ranges) > 0 != (to > 0) || to > 0 && ranges[0] != (backing.Range{From: from, To: to}) {
			t.Errorf("%v go with %d bytes of data, want %d to %d with %d", ranges, n, from, to, least)
		}
	}
	want(0, 0, 0)
	writeAt(t, f, pattern(5000, 1), 0)
	want(0, dag.ChunkSize, 5000)
	writeAt(t, f, pattern(5000, 1), middle)
	want(middle+dag.ChunkSize-evictStep, middle+dag.ChunkSize, 5000)
	list = list[:0]
	for at := int64(0); at < size; at += size / 4 {
		list = append(list, backing.Range{From: at + 100, To: at + size/8})
	}
	want(middle+100, middle+dag.ChunkSize, 4900)
	list = []backing.Range{{From: 0, To: middle + mostHoles}}
	want(middle+dag.ChunkSize-evictStep, middle+mostHoles, 5000)
	list = []backing.Range{{From: 2 * middle, To: size}}
	must(t, f.Allocate(ctx, 3*middle, 1<<20, unix.FALLOC_FL_KEEP_SIZE))
	want(size-evictStep, size, 0)
}

// A file of which the disk frees nothing keeps the sweep from no other.
func TestSweepWhereFreeingFails(t *testing.T) {
	d, c, s := newSpoilt(t, Options{})
	var inos []Ino
	for i := range 3 {
		inos = append(inos, d.write(Root, fmt.Sprint(i), pattern(3*dag.ChunkSize, byte(i))))
	}
	c.take(t, d, inos...)
	before := onDisk(t, d)
	for _, ino := range inos {
		must(t, d.DropChunk(ctx, ino, 1))
	}
	must(t, d.Sync())
	s.unfreed.Store(d.numberOf(inos[0]))
	must(t, d.Sweep(ctx))
	if n := before - onDisk(t, d); n < 3*dag.ChunkSize/2 || n > 5*dag.ChunkSize/2 {
		t.Errorf("%d bytes are freed", n)
	}
	if all, _ := d.Local(); all != onDisk(t, d) {
		t.Errorf("%d bytes count, the disk has %d", all, onDisk(t, d))
	}
}

// What the disk can never free of a file counts as here, and is not tried for ever: it
// goes with the file.
func TestNothingIsEverFreed(t *testing.T) {
	d, c, s := newSpoilt(t, Options{})
	ino := d.write(Root, "f", pattern(70<<20, 1))
	c.take(t, d, ino)
	s.nothingFreed = unix.EOPNOTSUPP
	s.unfreed.Store(d.numberOf(ino))
	for i := range 2 {
		if n := evict(t, d, ino); n < 32<<20 {
			t.Fatalf("%d bytes were let go of, the time %d", n, i)
		}
		if all, _ := d.Local(); all != onDisk(t, d) || all < 70<<20 {
			t.Errorf("%d bytes count, the disk has %d", all, onDisk(t, d))
		}
		if len(d.punches) != 0 {
			t.Errorf("%d ranges will be tried again", len(d.punches))
		}
	}
	evict(t, d, ino)
	if all, _ := d.Local(); all != 0 || onDisk(t, d) != 0 {
		t.Errorf("%d bytes count in the end, the disk has %d", all, onDisk(t, d))
	}
}

// Of an image with holes the data goes, and what comes free is counted, wherever it is;
// the last of it takes the file away.
func TestEvictPassesHolesOver(t *testing.T) {
	const size, piece = 256 << 20, 1 << 20
	d, c := evictingDevice(t, Options{})
	f, want := d.create(Root, "image"), make([]byte, size)
	for _, at := range []int64{0, 20 << 20, 40 << 20, size / 2} {
		copy(want[at:], pattern(piece, 1))
		writeAt(t, f, want[at:at+piece], at)
	}
	ino, all := f.Ino(), int64(size)
	_, err := d.SetAttr(ctx, ino, SetAttr{Size: &all})
	must(t, err)
	f.Release()
	c.take(t, d, ino)
	var freed []int64
	for range 4 {
		if n := evict(t, d, ino); n > 0 {
			freed = append(freed, n)
		}
		if all, _ := d.Local(); all != onDisk(t, d) {
			t.Errorf("%d bytes count, the disk has %d", all, onDisk(t, d))
		}
	}
	if len(freed) != 3 || freed[0] != piece || freed[1] != 2*piece || onDisk(t, d) != 0 {
		t.Errorf("%v bytes were let go of, %d are here still", freed, onDisk(t, d))
	}
	if !bytes.Equal(d.read(ino), want) {
		t.Error("it came back different")
	}
}

// A program that reads a file by itself, or has it mapped, goes on when the daemon was
// killed: what the next one lets go of stays there for it, and goes later.
func TestBytesStayForWhoHasTheFile(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	want := pattern(80<<20, 3)
	ino := d.write(Root, "f", want)
	c.take(t, d, ino)
	theirs, err := d.files.Open(d.numberOf(ino))
	must(t, err)
	d.restart()
	if n := evict(t, d, ino); n != 32<<20 {
		t.Fatalf("%d bytes were let go of", n)
	}
	got := make([]byte, len(want))
	if _, err := theirs.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("they read something else, %v", err)
	}
	must(t, theirs.Close())
	evict(t, d, ino)
	if n := onDisk(t, d); n > 16<<20+64<<10 {
		t.Errorf("%d bytes are still on the disk", n)
	}
	if !bytes.Equal(d.read(ino), want) {
		t.Error("came back different")
	}
}

func TestWhatIsInUseStays(t *testing.T) {
	held := error(nil)
	d, c := evictingDevice(t, Options{Held: func(context.Context, dag.File, int64, int64) error { return held }})
	ino := d.write(Root, "f", pattern(1<<20, 1))
	c.take(t, d, ino)
	f, err := d.Open(ctx, ino, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	if n := evict(t, d, ino); n != 0 {
		t.Error("an open file was let go of")
	}
	if n, err := d.Evict(ctx, ino, true); n == 0 || err != nil {
		t.Errorf("as the last resort: %d, %v", n, err)
	}
	p := make([]byte, 1<<20)
	if _, err := f.ReadAt(ctx, p, 0); err != nil || !bytes.Equal(p, pattern(1<<20, 1)) {
		t.Errorf("read on: %v", err)
	}
	f.Release()
	held = errors.New("too few holders")
	if n, err := d.Evict(ctx, ino, false); n != 0 || !errors.Is(err, held) {
		t.Errorf("%d, %v: too few holders have it", n, err)
	}
	held = nil
	if w, err := d.Open(ctx, ino, os.O_RDWR); err != nil {
		t.Fatal(err)
	} else if _, err := w.WriteAt(ctx, []byte("x"), 0, false); err != nil {
		t.Fatal(err)
	} else {
		w.Release()
	}
	if n := evict(t, d, ino); n != 0 {
		t.Error("what changed since the commit was let go of")
	}
	if _, unsynced := d.Local(); unsynced != 1<<20 {
		t.Errorf("%d bytes unsynced", unsynced)
	}
	c.take(t, d, ino)
	if n := evict(t, d, ino); n == 0 {
		t.Error("it is clean again, and yet it stays")
	}
}

// The process may end, and the power go, between the journal and the bytes.
func TestCrashBetweenJournalAndBytes(t *testing.T) {
	for _, size := range []int{1 << 20, 40 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			d, c := evictingDevice(t, Options{})
			want := pattern(size, 7)
			ino := d.write(Root, "f", want)
			c.take(t, d, ino)
			if n, err := d.Evict(ctx, ino, false); err != nil || n == 0 {
				t.Fatalf("%d, %v", n, err)
			}
			d.restart()
			if err := d.Sweep(ctx); err != nil {
				t.Fatal(err)
			}
			if all, _ := d.Local(); all != onDisk(t, d) {
				t.Errorf("counted %d, the disk has %d", all, onDisk(t, d))
			}
			if !bytes.Equal(d.read(ino), want) {
				t.Error("came back different")
			}
		})
	}
}

// Holes come back as holes.
func TestHolesStayHoles(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	ino := d.write(Root, "f", pattern(1<<20, 1))
	n := int64(64 << 20)
	if _, err := d.SetAttr(ctx, ino, SetAttr{Size: &n}); err != nil {
		t.Fatal(err)
	}
	blocks := attr(t, d, ino).Blocks
	if blocks > 4096 {
		t.Fatalf("a hole of 63 MiB takes %d blocks", blocks)
	}
	c.take(t, d, ino)
	if evict(t, d, ino)+evict(t, d, ino) == 0 {
		t.Error("nothing was let go of")
	}
	if n := onDisk(t, d); n != 0 {
		t.Errorf("%d bytes are left", n)
	}
	if got := attr(t, d, ino).Blocks; got != blocks {
		t.Errorf("let go of, it has %d blocks, not %d", got, blocks)
	}
	d.read(ino)
	if got := onDisk(t, d); got > 2<<20 || got == 0 {
		t.Errorf("back, it takes %d bytes", got)
	}
	if err := d.Sync(); err != nil { // from now on the tables say so
		t.Fatal(err)
	}
	f, err := d.Open(ctx, ino, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	if off, err := f.Seek(ctx, 0, unix.SEEK_HOLE); err != nil || off != 1<<20 {
		t.Errorf("the hole begins at %d, %v", off, err)
	}
}

// The hand goes around the files in the order in which they came.
func TestResidentsInOrderOfArrival(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	var inos []Ino
	for i := range 10 {
		inos = append(inos, d.write(Root, fmt.Sprint(i), pattern(100_000, byte(i))))
	}
	c.take(t, d, inos[:9]...)
	var got []Ino
	kept := 0
	for from := uint64(0); ; {
		next, err := d.Residents(from, 4, func(r Resident) {
			got = append(got, r.Ino)
			if r.Kept {
				kept++
			}
			if r.Local < 100_000 || time.Since(r.Used) > time.Hour {
				t.Errorf("%+v", r)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if from = next; next == 0 {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(inos) || kept != 1 {
		t.Errorf("%v, want %v; %d are kept", got, inos, kept)
	}
}

func TestLastRanges(t *testing.T) {
	const m = dag.ChunkSize
	list := []backing.Range{{From: 0, To: 3*m + 5}, {From: 4 * m, To: 6*m + 7}}
	for n, want := range map[int64]string{
		m:     "[{5242880 6291463}]",
		3 * m: "[{4194304 6291463} {2097152 3145733}]",
		5 * m: "[{4194304 6291463} {0 3145733}]", // less than the head would be left
		9 * m: "[{4194304 6291463} {0 3145733}]",
	} {
		if got := fmt.Sprint(lastRanges(list, n, m)); got != want {
			t.Errorf("%d: %v, want %v", n, got, want)
		}
	}
}

// A read and a write of one file, and the flush of the journal beside them, do
// not wait for each other.
func TestWriteRightAfterFetch(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	ino := c.gone(t, d, pattern(1<<20, 1))
	f, err := d.Open(ctx, ino, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	p := make([]byte, 1<<20)
	if _, err := f.ReadAt(ctx, p, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(ctx, []byte("edit"), 0, false); err != nil {
		t.Fatal(err)
	}
}

// A file that is written while a commit takes it, and a commit that fails, or
// ends with the process, after it has: the next one takes all that changed.
func TestChangesOfAFailedCommit(t *testing.T) {
	for _, crash := range []bool{false, true} {
		d, c := evictingDevice(t, Options{})
		ino := d.write(Root, "f", pattern(4<<20, 1))
		c.take(t, d, ino)
		edit := func(at int64) {
			f, err := d.Open(ctx, ino, os.O_RDWR)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Release()
			if _, err := f.WriteAt(ctx, []byte("edit"), at, false); err != nil {
				t.Fatal(err)
			}
		}
		edit(0)
		cut, err := d.Cut()
		if err != nil {
			t.Fatal(err)
		}
		in, _, _ := cut.Inode(ino)
		edit(2 << 20)
		f, err := cut.OpenFile(ctx, in, Whole)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Taken(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		edit(2<<20 + 5)
		if crash {
			d.restart()
		} else {
			cut.Close()
		}
		if cut, err = d.Cut(); err != nil {
			t.Fatal(err)
		}
		in, _, _ = cut.Inode(ino)
		if f, err = cut.OpenFile(ctx, in, Whole); err != nil {
			t.Fatal(err)
		}
		var changed backing.Ranges
		for _, r := range f.Changed() {
			changed.Add(r.From, r.To)
		}
		f.Close()
		cut.Close()
		if !changed.Contains(0, 4) || !changed.Contains(2<<20, 2<<20+9) {
			t.Errorf("crash %v: of what changed only %v is known", crash, changed.List())
		}
	}
}

// A file that grows after a part of it was let go of counts with all it has.
func TestUsageOfAGrowingFile(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	ino := c.gone(t, d, pattern(40<<20, 1))
	f, err := d.Open(ctx, ino, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(40 << 20); at < 50<<20; at += 1 << 20 {
		if _, err := f.WriteAt(ctx, pattern(1<<20, 1), at, false); err != nil {
			t.Fatal(err)
		}
	}
	f.Release()
	if _, bytes := d.Usage(); bytes != 50<<20 {
		t.Errorf("%d bytes", bytes)
	}
	if here := d.Here(); here != onDisk(t, d) {
		t.Errorf("%d bytes are here, the disk has %d", here, onDisk(t, d))
	}
}

// noRoom keeps nothing of what is fetched.
type noRoom struct{ boundless }

func (noRoom) Keep(int64) bool { return false }

// A commit that takes a file while somebody waits for its content gives up the
// blocks of the one before, or lets what it took be let go of here: the content is
// had from the new one.
func TestReadWhileACommitTakesTheFile(t *testing.T) {
	for i, room := range []Room{boundless{}, noRoom{}, boundless{}, noRoom{}} {
		evicts := i >= 2
		t.Run(fmt.Sprintf("%T,evicts=%v", room, evicts), func(t *testing.T) {
			d, c := evictingDevice(t, Options{})
			want, edit := pattern(3<<20, 1), pattern(1<<20, 2)
			ino := c.gone(t, d, want)
			d.SetRoom(room)
			f, err := d.Open(ctx, ino, os.O_RDWR)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Release()
			if _, err := f.WriteAt(ctx, edit, 2<<20, false); err != nil {
				t.Fatal(err)
			}
			copy(want[2<<20:], edit)
			c.before = func(i int64) {
				if i != 1 {
					return
				}
				c.before = nil
				old, err := d.ContentState(ctx, ino)
				must(t, err)
				c.take(t, d, ino)
				if !evicts {
					delete(c.files, old.Content)
					return
				}
				if n, err := d.Evict(ctx, ino, true); err != nil || n == 0 {
					t.Errorf("nothing was let go of: %v", err)
				}
				must(t, d.FinishEvictions(ctx))
			}
			got := make([]byte, len(want))
			if _, err := f.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v, the same: %v", err, bytes.Equal(got, want))
			}
			if c.before != nil {
				t.Error("no commit came between: the test shows nothing")
			}
		})
	}
}

// Writing into a file that is not here fetches nothing, and the commit only the
// chunk that was written to.
func TestWriteIntoWhatIsNotHere(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	want := pattern(5<<20, 1)
	ino := c.gone(t, d, want)
	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(t, err)
	defer f.Release()
	p := bytes.Repeat([]byte{7}, 4096)
	_, err = f.WriteAt(ctx, p, 2<<20+8192, false)
	must(t, err)
	copy(want[2<<20+8192:], p)
	if n := c.hasRead(); n != 0 {
		t.Errorf("the write fetched %d chunks", n)
	}
	cf := d.openCut(ino)
	changed := cf.Changed()
	if len(changed) != 1 || changed[0] != (backing.Range{From: 2 << 20, To: 3 << 20}) {
		t.Fatalf("the commit takes %v", changed)
	}
	got := make([]byte, 1<<20)
	must(t, cf.ReadAt(ctx, got, 2<<20))
	if !bytes.Equal(got, want[2<<20:3<<20]) {
		t.Error("the commit takes another content")
	}
	if n := c.hasRead(); n > 2 { // before what was written, and behind it
		t.Errorf("the commit read %d chunks", n)
	}
}

// Many small writes all over a file that is not here do not leave ever more
// ranges: the chunks that they go to are fetched, one at a time.
func TestManyRangesBecomeFewer(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	const stride = 2048
	want := pattern(12<<20, 1)
	ino := c.gone(t, d, want)
	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(t, err)
	defer f.Release()
	for at := int64(0); at < int64(len(want)); at += stride {
		_, err := f.WriteAt(ctx, []byte{9}, at, false)
		must(t, err)
		want[at] = 9
		d.background.Wait()
	}
	f.in.mu.Lock()
	n := len(f.in.valid.List())
	f.in.mu.Unlock()
	if most := manyRanges + len(want)/stride/8; n > most {
		t.Errorf("%d ranges", n)
	}
	if !bytes.Equal(d.read(ino), want) {
		t.Error("another content")
	}
}

// A file of which only a part is here, and that has changed, is what it was also for who has
// it open while it loses its name, and for a commit under way, though nothing of it was in
// memory before.
func TestPartOfAFileLosesItsName(t *testing.T) {
	for _, committing := range []bool{false, true} {
		d, c := evictingDevice(t, Options{})
		want := pattern(3*dag.ChunkSize, 1)
		ino := d.write(Root, "f", want)
		c.take(t, d, ino)
		must(t, d.DropChunk(ctx, ino, 1))
		must(t, d.FinishEvictions(ctx))
		f, err := d.Open(ctx, ino, os.O_RDWR)
		must(t, err)
		writeAt(t, f, []byte("edit"), 0)
		copy(want, "edit")
		f.Release()
		d.Close()
		d.restart()
		got := make([]byte, len(want))
		if committing {
			cut, err := d.Cut()
			must(t, err)
			t.Cleanup(cut.Close)
			in, _, err := cut.Inode(ino)
			must(t, err)
			must(t, d.Unlink(ctx, Root, "f"))
			cf, err := cut.OpenFile(ctx, in, Whole)
			must(t, err)
			t.Cleanup(cf.Close)
			if len(cf.Changed()) == 0 {
				t.Error("nothing of it counts as changed")
			}
			must(t, cf.ReadAt(ctx, got, 0))
		} else {
			r, err := d.Open(ctx, ino, os.O_RDONLY)
			must(t, err)
			t.Cleanup(r.Release)
			must(t, d.Unlink(ctx, Root, "f"))
			_, err = r.ReadAt(ctx, got, 0)
			must(t, err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("something else is read, by a commit: %v", committing)
		}
	}
}
