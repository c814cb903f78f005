package writeback_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/disk"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// gate is a swarm that takes packs when it is told to.
type gate struct {
	*memswarm.Swarm

	mu    sync.Mutex // guards waits
	waits []chan struct{}
	taken atomic.Int64 // bytes of packs
}

func (g *gate) Store(ctx context.Context, gr group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	open := make(chan struct{})
	g.mu.Lock()
	g.waits = append(g.waits, open)
	g.mu.Unlock()
	select {
	case <-open:
	case <-ctx.Done():
		return group.SlotSet{}, ctx.Err()
	}
	g.taken.Add(int64(gr.Class.Size()))
	return g.Swarm.Store(ctx, gr, lease, manifest, shards)
}

// waiting is how many packs have come and were not taken.
func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waits)
}

// take takes the pack that came first.
func (g *gate) take() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.waits[0])
	g.waits = g.waits[1:]
}

// readDisk is a disk that counts the bytes that are read from files.
type readDisk struct {
	disk.FS
	read atomic.Int64
}

type readFile struct {
	disk.File
	of *readDisk
}

func (d *readDisk) Open(name string, flags int) (disk.File, error) {
	f, err := d.FS.Open(name, flags)
	return readFile{f, d}, err
}

func (f readFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.of.read.Add(int64(n))
	return n, err
}

// A file never has to fit in memory, and encoding overlaps uploading: while the first
// pack is still being taken, the next two are coded and wait for their turn, one more
// fills, and of the rest of the file nothing is read until a pack is taken.
func TestLargeFileFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			packSize = 4 << 20
			onTheWay = 3
			inMemory = (onTheWay+1)*packSize + 8<<20 // and the chunks that are sealed ahead
			size     = 80 << 20
		)
		swarm := memswarm.New(9, 4, 7)
		g, fs := &gate{Swarm: swarm}, &readDisk{FS: disk.Local}
		d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: g, publish: swarm.Publish, fs: fs}
		d.open(newDrive)
		content := random(1, size)
		d.put("large", content)
		begin := fs.read.Load()
		synced := make(chan error, 1)
		go func() { synced <- d.engine.Sync(ctx) }()
		synctest.Wait()
		if n := g.waiting(); n != onTheWay {
			t.Errorf("%d packs are coded while none is taken, want %d", n, onTheWay)
		}
		for packs := 0; ; packs++ {
			held := fs.read.Load() - begin - g.taken.Load()
			if held > inMemory {
				t.Fatalf("after %d packs, %d MiB that were read are not out", packs, held>>20)
			}
			select {
			case err := <-synced:
				if err != nil || packs < size/packSize {
					t.Errorf("the end after %d packs: %v", packs, err)
				}
				check(t, d.committed(), map[string]string{"large": string(content)})
				d.close()
				<-time.After(time.Minute) // for what leveldb has left running
				return
			default:
			}
			if g.waiting() == 0 {
				t.Fatal("nothing goes on")
			}
			g.take()
			synctest.Wait()
		}
	})
}
