package evict_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"skep/cache/backing"
	"skep/cache/blocks"
	"skep/cache/disk"
	"skep/cache/evict"
	"skep/cache/packfiles"
	"skep/cache/readthrough"
	"skep/cache/space"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/block"
	"skep/chunker/commit"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/secret"
	"skep/test/memswarm"
	"skep/test/seed"
)

var ctx = context.Background()

// device is a drive with a bounded cache on one device, over a swarm in memory.
// It lives in a bubble of testing/synctest, where time passes only while all
// wait for it.
type device struct {
	t        testing.TB
	dir      string
	swarm    *memswarm.Swarm
	uplink   *uplink           // to the swarm
	sink     writeback.Sink    // nil: the uplink
	disk     *takenDisk        // nil: one that is never full
	measured func() space.Disk // what the disk says; nil: how it is
	rows     int64             // size of the journal's segments, which lie on disk, too; 0: they do not
	limit    int64
	wait     time.Duration // patience of writers
	looks    atomic.Int64  // how often the use of the disk was measured
	stay     atomic.Int64  // files of this size must stay, as their holders do not answer
	st       *state.Store
	files    *backing.Store
	tree     *tree.Tree
	engine   *writeback.Engine
	keeper   *evict.Keeper
	stop     func()
}

func newDevice(t testing.TB, limit int64) *device {
	d := &device{t: t, dir: t.TempDir(), swarm: memswarm.New(6, 2, 4), limit: limit, wait: time.Minute}
	d.uplink = &uplink{Swarm: d.swarm}
	d.open()
	t.Cleanup(func() {
		d.close()
		time.Sleep(time.Minute) // leveldb ends a moment after it is closed
	})
	return d
}

// The first use of the compressor makes channels. It must not be in the bubble of
// one test, or no other can use them.
func init() {
	_, _ = block.NewSealer(secret.Key{}).Seal(link.Raw, make([]byte, 1000), nil)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (d *device) open() {
	rows := state.Options{SegmentSize: d.rows}
	if d.rows > 0 {
		rows.Disk = d.disk
	}
	d.st = must(state.OpenWith(filepath.Join(d.dir, "state"), rows))
	var b state.Batch
	blocks.SetCounted(&b)
	must(d.st.Apply(&b))
	d.files = must(backing.OpenOn(d.backingDisk(), filepath.Join(d.dir, "files")))
	packs := must(packfiles.Open(filepath.Join(d.dir, "packs")))
	table := blocks.New(d.st)
	names := secret.Key{2}
	reader := readthrough.New(table, packs, d.swarm, names)
	d.tree = must(tree.Open(tree.Options{State: d.st, Backing: d.files, Content: reader, Device: 1,
		Held: func(_ context.Context, f dag.File, _, _ int64) error {
			if f.Size == d.stay.Load() {
				return errors.New("too few holders")
			}
			return nil
		}}))
	log := slog.New(slog.DiscardHandler)
	d.engine = must(writeback.New(writeback.Config{
		State: d.st, Tree: d.tree, Table: table, Reader: reader, Packs: packs, Sink: cmp.Or[writeback.Sink](d.sink, d.uplink), Publish: d.uplink.Publish,
		Drive: [16]byte{9}, Epoch: 1, Device: ed25519.NewKeyFromSeed(make([]byte, 32)),
		Root: secret.Key{1}, Names: names, Read: secret.Key{3}, Convergence: secret.Key{4},
		ContentClass: 22, Timing: writeback.Timing{Quiet: time.Hour, Most: time.Hour, Retry: 100 * time.Millisecond}, Now: time.Now, Log: log,
	}))
	d.keeper = evict.New(evict.Config{
		Tree: d.tree, Limit: d.limit, Urge: d.engine.Urge, Compact: d.tree.CompactSmall, Patience: d.wait, Now: time.Now, Log: log,
		Measure: func() (int64, space.Disk) { d.looks.Add(1); return 0, d.measure() },
		Uplink: func() evict.Uplink {
			p := d.engine.Progress()
			sent, busy := d.engine.Uplink()
			return evict.Uplink{Commit: p.Number, Sent: sent, Busy: busy, Failing: p.Failing()}
		},
	})
	d.tree.SetRoom(d.keeper)
	run, cancel := context.WithCancel(ctx)
	var services sync.WaitGroup
	services.Go(func() { _ = d.engine.Run(run) })
	services.Go(func() { _ = d.keeper.Run(run) })
	services.Go(func() { _ = d.tree.Run(run) })
	services.Go(func() { _ = d.tree.Sweep(run) })
	d.stop = func() { cancel(); services.Wait() }
}

func (d *device) measure() space.Disk {
	if d.measured != nil {
		return d.measured()
	}
	return d.disk.measure()
}

func (d *device) backingDisk() disk.FS {
	if d.disk == nil {
		return disk.Local
	}
	return d.disk
}

func (d *device) close() {
	d.stop()
	d.tree.Close()
	_ = d.st.Close()
}

// onDisk is what the backing files really take, and how many they are.
func (d *device) onDisk() (bytes, files int64) {
	err := d.files.Each(func(number uint64) error {
		st, err := d.files.Stat(number)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		bytes += st.Blocks * 512
		files++
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return bytes, files
}

// worker changes files of its own, and knows what they must contain.
type worker struct {
	*device
	name  string
	r     *rand.Rand
	files map[string][]byte
}

// sizes of files, from rows of the tables to more than goes at a time.
var sizes = []int{100, 10_000, 100_000, 1 << 20, 3 << 20, 5<<20 + 77}

func (w *worker) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.r.Uint32())
	}
	return b
}

func (w *worker) pick() string {
	at := w.r.IntN(len(w.files))
	for name := range w.files {
		if at--; at < 0 {
			return name
		}
	}
	return ""
}

func (w *worker) step() error {
	if len(w.files) < 4 || len(w.files) < 12 && w.r.IntN(5) == 0 {
		return w.create()
	}
	name := w.pick()
	switch w.r.IntN(10) {
	case 0:
		return w.remove(name)
	case 1:
		return w.truncate(name)
	case 2, 3, 4:
		return w.overwrite(name)
	}
	return w.check(name)
}

// remove deletes a file, and forgets it, as a kernel does once nobody has it open: until
// then its content stays.
func (w *worker) remove(name string) error {
	delete(w.files, name)
	a, err := w.tree.Lookup(ctx, tree.Root, name)
	if err == nil {
		err = w.tree.Unlink(ctx, tree.Root, name)
		w.tree.Forget(a.Ino)
	}
	return err
}

func (w *worker) create() error {
	name := fmt.Sprintf("%s-%d", w.name, w.r.Uint32())
	f, _, err := w.tree.Create(ctx, tree.Root, name, 0o644, os.O_RDWR, tree.Owner{})
	if err != nil {
		return err
	}
	defer f.Release()
	b := w.noise(sizes[w.r.IntN(len(sizes))])
	w.files[name] = b
	for at := 0; at < len(b); at += 1 << 20 {
		if _, err := f.WriteAt(ctx, b[at:min(len(b), at+1<<20)], int64(at), false); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) opened(name string, flags int, fn func(*tree.File) error) error {
	a, err := w.tree.Lookup(ctx, tree.Root, name)
	if err != nil {
		return err
	}
	f, err := w.tree.Open(ctx, a.Ino, flags)
	if err != nil {
		return err
	}
	defer f.Release()
	return fn(f)
}

func (w *worker) overwrite(name string) error {
	return w.opened(name, os.O_RDWR, func(f *tree.File) error {
		b := w.noise(1 + w.r.IntN(200_000))
		at := w.r.IntN(len(w.files[name]) + 100_000)
		content := w.files[name]
		if need := at + len(b); len(content) < need {
			content = append(content, make([]byte, need-len(content))...)
		}
		copy(content[at:], b)
		w.files[name] = content
		_, err := f.WriteAt(ctx, b, int64(at), false)
		return err
	})
}

func (w *worker) truncate(name string) error {
	n := w.r.IntN(len(w.files[name]) + 50_000)
	b := append(bytes.Clone(w.files[name]), make([]byte, 50_000)...)[:n]
	w.files[name] = b
	size := int64(n)
	a, err := w.tree.Lookup(ctx, tree.Root, name)
	if err == nil {
		_, err = w.tree.SetAttr(ctx, a.Ino, tree.SetAttr{Size: &size})
	}
	return err
}

// check reads a part of a file, or all of it.
func (w *worker) check(name string) error {
	return w.opened(name, os.O_RDONLY, func(f *tree.File) error {
		want := w.files[name]
		from, to := 0, len(want)
		if w.r.IntN(2) == 0 && to > 0 {
			from = w.r.IntN(to)
			to = min(to, from+1+w.r.IntN(300_000))
		}
		for at := from; at < to; {
			p := make([]byte, min(128<<10, to-at))
			n, err := f.ReadAt(ctx, p, int64(at))
			if err != nil || n != len(p) {
				return fmt.Errorf("%s: %d of %d bytes at %d: %w", name, n, len(p), at, err)
			}
			if !bytes.Equal(p, want[at:at+n]) {
				return fmt.Errorf("%s: wrong bytes at %d", name, at)
			}
			at += n
		}
		return nil
	})
}

// Files are written, cut, read and deleted while commits take them and the
// cache lets go of them: what is read is always right, the totals are those of
// the disk, and the limit holds.
func TestRandom(t *testing.T) { synctest.Test(t, testRandom) }

func testRandom(t *testing.T) {
	from := seed.For(t)
	const limit = 16 << 20
	d := newDevice(t, limit)
	steps := 120
	if testing.Short() {
		steps = 40
	}
	var workers []*worker
	for i := range 3 {
		workers = append(workers, &worker{device: d, name: fmt.Sprint(i), r: rand.New(rand.NewPCG(from, uint64(i))), files: map[string][]byte{}})
	}
	for range 3 {
		var wg sync.WaitGroup
		for _, w := range workers {
			wg.Go(func() {
				for range steps / 3 {
					if err := w.step(); err != nil {
						t.Errorf("worker %s: %v; %+v", w.name, err, d.keeper.Report())
						return
					}
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		d.close()
		d.open()
	}
	if err := d.engine.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	for _, w := range workers {
		for name := range w.files {
			if err := w.check(name); err != nil {
				t.Error(err)
			}
		}
	}
	if d.keeper.Report().Freed == 0 && d.swarm.Reads() == 0 {
		t.Error("nothing was ever let go of: the test shows nothing")
	}
	d.settle(limit)
}

// extentBlock is what ext4 counts to a file beside its content when it writes it
// out in more pieces than its inode names: from the fifth piece on, and as long as
// there are so many. Files of these sizes have no more of it.
const extentBlock = 4096

// settle waits until nothing moves any more. Then the disk holds no more than the
// limit, and what the totals say.
func (d *device) settle(limit int64) {
	d.t.Helper()
	time.Sleep(time.Minute)
	synctest.Wait()
	disk, files := d.onDisk()
	all, unsynced := d.tree.Local()
	if disk > limit || max(all-disk, disk-all) > files*extentBlock || unsynced != 0 {
		d.t.Errorf("counted %d and %d unsynced, the disk has %d of %d in %d files", all, unsynced, disk, limit, files)
	}
}

// write makes a file of some MiB.
func (d *device) write(ctx context.Context, name string, mib int) error {
	f, _, err := d.tree.Create(ctx, tree.Root, name, 0o644, os.O_RDWR, tree.Owner{})
	if err != nil {
		return err
	}
	defer f.Release()
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(i * 31 >> 3)
	}
	for i := range mib {
		b[0] = byte(i)
		if _, err := f.WriteAt(ctx, b, int64(i)<<20, false); err != nil {
			return err
		}
	}
	return nil
}

// What has to stay, as its holders do not answer, keeps nothing else from going, though
// it would go first if it could.
func TestWhatMustStayHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const large = 20
		d := newDevice(t, 64<<20)
		d.stay.Store(large << 20)
		must(0, d.write(ctx, "large", large))
		must(0, d.engine.Sync(ctx))
		time.Sleep(time.Hour)
		for i := range 80 {
			if err := d.write(ctx, fmt.Sprint("small", i), 1); err != nil {
				t.Fatalf("after %d files: %v; %+v", i, err, d.keeper.Report())
			}
			if i%20 == 19 {
				must(0, d.engine.Sync(ctx))
			}
		}
		a := must(d.tree.Lookup(ctx, tree.Root, "large"))
		if c := must(d.tree.ContentState(ctx, a.Ino)); c.Resident != large<<20 {
			t.Errorf("of what must stay %d bytes are here", c.Resident)
		}
	})
}

// Where the disk makes no holes, files go as a whole, and writers find room.
func TestDiskWithoutHoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 64 << 20
		d := &device{t: t, dir: t.TempDir(), swarm: memswarm.New(6, 2, 4), limit: limit, wait: 15 * time.Second}
		d.uplink = &uplink{Swarm: d.swarm}
		d.disk = &takenDisk{FS: disk.Local, size: 1 << 40, whole: true, used: func() int64 { return 0 }}
		d.open()
		t.Cleanup(func() {
			d.close()
			time.Sleep(time.Minute)
		})
		for i := range 6 {
			if err := d.write(ctx, fmt.Sprint("large", i), 40); err != nil {
				t.Fatalf("after %d files: %v; %+v", i, err, d.keeper.Report())
			}
			must(0, d.engine.Sync(ctx))
		}
		d.settle(limit)
	})
}

// A writer of much at once gets room also while there is enough for others.
func TestMuchAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, 16<<20)
		must(0, d.write(ctx, "a", 12))
		must(0, d.engine.Sync(ctx))
		f, _, err := d.tree.Create(ctx, tree.Root, "b", 0o644, os.O_RDWR, tree.Owner{})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Release()
		if err := f.Allocate(ctx, 0, 6<<20, 0); err != nil {
			t.Errorf("of 16 MiB, 12 are out and may go, and 6 more are refused: %v", err)
		}
	})
}

// uplink is the way to a swarm.
type uplink struct {
	*memswarm.Swarm
	rate  int           // bytes of packs a second; 0: no limit
	held  chan struct{} // no commit is published until it is closed; nil: at once
	lease time.Duration // what holders take to be told of packs that are dead
}

func (u *uplink) Lease(ctx context.Context, g group.Group, lease []byte) (group.SlotSet, error) {
	if g.Dead.Count() > 0 {
		time.Sleep(u.lease)
	}
	return u.Swarm.Lease(ctx, g, lease)
}

func (u *uplink) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	if u.rate > 0 {
		time.Sleep(time.Second * time.Duration(g.Class.Size()) / time.Duration(u.rate))
	}
	return u.Swarm.Store(ctx, g, lease, manifest, shards)
}

func (u *uplink) Publish(ctx context.Context, h commit.Head) error {
	if u.held != nil {
		<-u.held
	}
	return u.Swarm.Publish(ctx, h)
}

// Writers are slowed to what the uplink takes, however seldom and little was sent
// before: that it had nothing to do is no sign that it is slow.
func TestSpeedOfTheUplink(t *testing.T) { synctest.Test(t, testSpeedOfTheUplink) }

func testSpeedOfTheUplink(t *testing.T) {
	const limit, rate = 64 << 20, 32 << 20
	d := newDevice(t, limit)
	d.uplink.rate = rate
	for i := range 8 {
		must(0, d.write(ctx, fmt.Sprint("a", i), 1+i%2))
		must(0, d.engine.Sync(ctx))
		time.Sleep(10 * time.Second)
	}
	d.uplink.held = make(chan struct{})
	defer close(d.uplink.held)
	must(0, d.write(ctx, "b", limit>>20*3/4)) // half way from where writers are slowed to the limit
	begin := time.Now()
	must(0, d.write(ctx, "c", 1))
	if took, want := time.Since(begin), time.Second*(1<<20)/rate; took < want/2 || took > want*3/2 {
		t.Errorf("1 MiB took %v, an uplink of 32 MiB/s takes %v", took, want)
	}
}

// When nothing goes out, writers wait, are refused in the end, and those after
// them at once; one that is killed waits no longer; and when something is
// deleted, or goes out, all goes on.
func TestNothingGoesOut(t *testing.T) { synctest.Test(t, testNothingGoesOut) }

func testNothingGoesOut(t *testing.T) {
	d := newDevice(t, 16<<20)
	for i := range 6 {
		d.swarm.Set(i, func(h *memswarm.Holder) { h.Down = true })
	}
	if err := d.write(ctx, "a", 12); err != nil {
		t.Fatal(err)
	}
	killed, kill := context.WithTimeout(ctx, time.Second)
	defer kill()
	if err := d.write(killed, "b", 10); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a writer that is killed: %v", err)
	}
	d.close()
	d.wait = 2 * time.Second
	d.open()
	if err := d.write(ctx, "c", 10); !errors.Is(err, tree.ErrNoSpace) {
		t.Fatalf("there is no room: %v", err)
	}
	if !d.keeper.Report().Full {
		t.Error("it is not told that the cache is full")
	}
	a := must(d.tree.Lookup(ctx, tree.Root, "a"))
	must(0, d.tree.Unlink(ctx, tree.Root, "a"))
	d.tree.Forget(a.Ino)
	time.Sleep(time.Minute)
	if err := d.write(ctx, "d", 3); err != nil {
		t.Errorf("what was deleted gives no room back: %v", err)
	}
	for i := range 6 {
		d.swarm.Set(i, func(h *memswarm.Holder) { h.Down = false })
	}
	time.Sleep(time.Minute)
	if err := d.write(ctx, "e", 20); err != nil {
		t.Errorf("what goes out gives no room back: %v", err)
	}
}

// takenDisk is a disk of which others take a part: backing files find the rest.
type takenDisk struct {
	disk.FS
	size  int64
	quota bool // it says that there is room
	whole bool // it makes no holes
	used  func() int64
	taken atomic.Int64
}

func (d *takenDisk) measure() space.Disk {
	if d == nil {
		return space.Disk{Size: 1 << 40, Free: 1 << 40}
	}
	if d.quota {
		return space.Disk{Size: d.size, Free: d.size}
	}
	return space.Disk{Size: d.size, Free: d.free()}
}

func (d *takenDisk) free() int64 { return max(0, d.size-d.taken.Load()-d.used()) }

func (d *takenDisk) Open(name string, flags int) (disk.File, error) {
	f, err := d.FS.Open(name, flags)
	return takenFile{f, d}, err
}

type takenFile struct {
	disk.File
	d *takenDisk
}

func (f takenFile) Allocate(mode uint32, off, n int64) error {
	if mode&unix.FALLOC_FL_PUNCH_HOLE != 0 && f.d.whole {
		return unix.EOPNOTSUPP
	}
	if mode == 0 && f.d.free() < n {
		return unix.ENOSPC
	}
	return f.File.Allocate(mode, off, n)
}

func (f takenFile) WriteAt(p []byte, off int64) (int, error) {
	st, err := f.File.Stat()
	if err == nil && st.Blocks*512 < off+int64(len(p)) && f.d.free() < int64(len(p)) {
		return 0, unix.ENOSPC
	}
	return f.File.WriteAt(p, off)
}

// Others fill the disk between two looks at it: who writes then waits until what is
// out has made room, also where a quota keeps the disk from saying that it is full;
// and is refused when nothing can go.
func TestOthersFillTheDisk(t *testing.T) {
	for _, quota := range []bool{false, true} {
		t.Run(fmt.Sprint("quota ", quota), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testOthersFillTheDisk(t, quota) })
		})
	}
}

// newFullDevice returns a device on a disk that others have just filled, with 24 MiB
// that may go.
func newFullDevice(t *testing.T, quota bool) *device {
	d := &device{t: t, dir: t.TempDir(), swarm: memswarm.New(6, 2, 4), limit: 96 << 20, wait: 15 * time.Second}
	d.uplink = &uplink{Swarm: d.swarm}
	d.disk = &takenDisk{FS: disk.Local, size: 96 << 20, quota: quota}
	d.disk.used = func() int64 { n, _ := d.onDisk(); return n }
	d.open()
	t.Cleanup(func() {
		d.close()
		time.Sleep(time.Minute)
	})
	must(0, d.write(ctx, "out", 24))
	must(0, d.engine.Sync(ctx))
	time.Sleep(10 * time.Second)
	d.disk.taken.Store(d.disk.size - d.disk.used())
	return d
}

func testOthersFillTheDisk(t *testing.T, quota bool) {
	d := newFullDevice(t, quota)
	begin := time.Now()
	if err := d.write(ctx, "new", 6); err != nil {
		t.Fatalf("while 24 MiB could go, in %v: %v; %+v", time.Since(begin), err, d.keeper.Report())
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	for i := range 6 {
		d.swarm.Set(i, func(h *memswarm.Holder) { h.Down = true })
	}
	if err := d.write(ctx, "much", 32); !errors.Is(err, tree.ErrNoSpace) {
		t.Errorf("when nothing can go: %v; %+v", err, d.keeper.Report())
	}
	begin = time.Now()
	if err := d.write(ctx, "more", 1); !errors.Is(err, tree.ErrNoSpace) || time.Since(begin) > 5*time.Second {
		t.Errorf("after somebody was refused, in %v: %v", time.Since(begin), err)
	}
	d.disk.taken.Store(0)
	time.Sleep(5 * time.Second)
	if err := d.write(ctx, "again", 8); err != nil {
		t.Errorf("when others have given the room back: %v; %+v", err, d.keeper.Report())
	}
}

// Who makes files waits as a writer does while there is no room for their rows, and
// content that is out may go; and no longer than that.
func TestRowsWaitForRoom(t *testing.T) { synctest.Test(t, testRowsWaitForRoom) }

func testRowsWaitForRoom(t *testing.T) {
	d := &device{t: t, dir: t.TempDir(), swarm: memswarm.New(6, 2, 4), limit: 96 << 20, wait: 15 * time.Second, rows: 1 << 20}
	d.uplink = &uplink{Swarm: d.swarm}
	d.disk = &takenDisk{FS: disk.Local, size: 96 << 20}
	var journal atomic.Int64
	d.disk.used = func() int64 { n, _ := d.onDisk(); return n + journal.Load() }
	d.files = must(backing.Open(filepath.Join(d.dir, "files")))
	d.open()
	defer func() {
		d.close()
		time.Sleep(time.Minute)
	}()
	target, made := strings.Repeat("x", 4000), 0
	fill := func(ctx context.Context) error { // until the journal has grown
		for size := d.st.JournalSize(); d.st.JournalSize() == size; made++ {
			if _, err := d.tree.Symlink(ctx, tree.Root, fmt.Sprint(made), target, tree.Owner{}); err != nil {
				return err
			}
		}
		journal.Store(d.st.JournalSize())
		return nil
	}
	must(0, d.write(ctx, "out", 24))
	must(0, d.engine.Sync(ctx))
	time.Sleep(10 * time.Second)
	journal.Store(d.st.JournalSize())
	d.disk.taken.Store(d.disk.size - d.disk.used())
	begin := time.Now()
	if err := fill(ctx); err != nil {
		t.Fatalf("while 24 MiB could go, in %v: %v; %+v", time.Since(begin), err, d.keeper.Report())
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, err := d.tree.Lookup(ctx, tree.Root, fmt.Sprint(made-1)); err != nil {
		t.Errorf("what was made: %v", err)
	}

	for i := range 6 {
		d.swarm.Set(i, func(h *memswarm.Holder) { h.Down = true })
	}
	out := must(d.tree.Lookup(ctx, tree.Root, "out"))
	must(0, d.tree.Unlink(ctx, tree.Root, "out"))
	d.tree.Forget(out.Ino)
	d.disk.taken.Store(0)
	time.Sleep(5 * time.Second)
	must(0, d.write(ctx, "pending", 8)) // which cannot go
	time.Sleep(5 * time.Second)
	d.disk.taken.Store(d.disk.free())
	killed, kill := context.WithTimeout(ctx, time.Second)
	defer kill()
	if err := fill(killed); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one that is killed: %v", err)
	}
	begin = time.Now()
	if err := fill(ctx); !errors.Is(err, tree.ErrNoSpace) || time.Since(begin) > time.Minute {
		t.Errorf("when nothing can go, in %v: %v", time.Since(begin), err)
	}
	begin = time.Now()
	if err := fill(ctx); !errors.Is(err, tree.ErrNoSpace) || time.Since(begin) > 5*time.Second {
		t.Errorf("after somebody was refused, in %v: %v", time.Since(begin), err)
	}
	d.disk.taken.Store(0)
	time.Sleep(5 * time.Second)
	if err := fill(ctx); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}
