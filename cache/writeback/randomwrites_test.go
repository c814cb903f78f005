package writeback_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"skep/cache/disk"
	"skep/chunker/group"
	"skep/test/memswarm"
	"skep/test/seed"
)

// forgetful counts the bytes of shards that it is given, and keeps none: there
// would be too many for memory.
type forgetful struct {
	*memswarm.Swarm
	stored atomic.Int64
}

func (f *forgetful) Store(_ context.Context, g group.Group, _, _ []byte, shards [][]byte) (out group.SlotSet, err error) {
	for i, s := range shards {
		f.stored.Add(int64(len(s)))
		out.Add(i)
	}
	return out, nil
}

// TestRandomWrites: what the commits of a large file cost that is written at random
// is in proportion to the chunks that were written to, whatever the file's size.
// With SKEP_SCALE, as make scale sets it, the file has 4 GiB.
func TestRandomWrites(t *testing.T) {
	size, most := int64(32<<20), 16
	if os.Getenv("SKEP_SCALE") != "" {
		size, most = 4<<30, 4096
	}
	const chunk, block = 1 << 20, 4096
	swarm := &forgetful{Swarm: memswarm.New(9, 4, 7)}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm.Swarm, sink: swarm, publish: swarm.Publish,
		fs:    &counting{FS: disk.Local},
		alone: func(time.Time) bool { return false }} // nothing is folded: that reads what holders have
	d.open(newDrive)
	t.Cleanup(d.close)
	commit := func(what string, chunks int, do func()) {
		t.Helper()
		stored := swarm.stored.Load()
		var begin time.Time
		w := d.cost(func() {
			do()
			begin = time.Now()
		})
		took := time.Since(begin)
		stored = swarm.stored.Load() - stored
		t.Logf("%-12s %5d chunks: %11d bytes read, %11d stored, %6.0f ms", what, chunks, w.read, stored, float64(took)/1e6)
		// A pack of 4 MiB holds three chunks, and becomes 7/4 of that in shards; the
		// path above the chunks is in packs of its own.
		if n := int64(chunks) * chunk; w.read > n || stored > n*7/3+8<<20 {
			t.Errorf("%s: %d bytes were read and %d stored for %d chunks", what, w.read, stored, chunks)
		}
	}
	commit("all of it", int(size/chunk), func() {
		d.put("image", nil)
		for at := int64(0); at < size; at += 16 << 20 {
			d.edit("image", random(uint64(at>>24), 16<<20), at)
		}
	})
	r := rand.New(rand.NewPCG(seed.For(t), 0))
	for writes := 1; writes <= most; writes *= 16 {
		offs := map[int64]bool{}
		chunks := map[int64]bool{}
		for range writes {
			off := r.Int64N(size/block) * block
			offs[off], chunks[off/chunk] = true, true
		}
		commit(fmt.Sprint(writes, " writes"), len(chunks), func() {
			for off := range offs {
				d.edit("image", random(r.Uint64(), block), off)
			}
		})
	}
}
