package readthrough_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/readerr"
	"skep/chunker/group"
)

// cut are packs that cannot be reached beyond an offset while the cable is out.
type cut struct {
	*packs
	out    atomic.Bool
	beyond int
}

func (c *cut) ReadKnown(ctx context.Context, ref group.PackRef, off, n int, room func(int) []byte, fits func([]byte) bool) ([]byte, bool, error) {
	if c.out.Load() && off > c.beyond {
		return nil, false, fmt.Errorf("the cable is out: %w", readerr.ErrUnreachable)
	}
	return c.packs.ReadKnown(ctx, ref, off, n, room, fits)
}

// What could not be fetched ahead, one chunk or a span of them, is asked for anew when
// somebody wants it.
func TestFailedAheadIsFetchedAnew(t *testing.T) {
	for read, beyond := range map[int64]int{1: 1 << 19, 2: 3 << 19} { // chunks read, and where the next ones lie
		swarm := newSwarm()
		source := &cut{packs: swarm, beyond: beyond}
		d := newDeviceOn(t, swarm, source)
		f, content := d.file(1, 12)
		synctest.Test(t, func(t *testing.T) {
			if _, err := d.reader.ReadChunk(t.Context(), f, 11); err != nil { // so that links are known
				t.Fatal(err)
			}
			source.out.Store(true)
			for i := range read {
				if _, err := d.reader.ReadChunk(t.Context(), f, i); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			source.out.Store(false)
			time.Sleep(time.Hour)
			for i := read; i < 12; i++ {
				if b, err := d.reader.ReadChunk(t.Context(), f, i); err != nil || !bytes.Equal(b, chunkOf(content, i)) {
					t.Errorf("%d chunks were read before; chunk %d: an hour after the cable is in again: %v", read, i, err)
				}
			}
		})
	}
}
