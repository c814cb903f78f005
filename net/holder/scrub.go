package holder

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"time"

	"skep/chunker/group"
)

// scrubUntil looks for rot in the time that is left: again and again it reads
// every shard, one after the other, at a bounded rate, and waits while others
// ask for something. What is damaged is removed by the store, and so from
// answers and statements; who reads the statement repairs it.
func (h *Holder) scrubUntil(ctx context.Context) {
	for {
		next := time.Now().Add(h.conf.Scrub)
		if !h.scrubAll(ctx) || !pause(ctx, time.Until(next)) {
			return
		}
	}
}

// scrubAll looks at all groups once, from one picked at random on, so that a
// holder that is often restarted comes to all of them too. It returns false
// when ctx has ended.
func (h *Holder) scrubAll(ctx context.Context) bool {
	ids := h.store.Holdings()
	slices.SortFunc(ids, func(a, b group.ID) int { return bytes.Compare(a[:], b[:]) })
	if len(ids) == 0 {
		return ctx.Err() == nil
	}
	first := rand.IntN(len(ids))
	for i := range ids {
		if !h.scrubGroup(ctx, ids[(first+i)%len(ids)]) {
			return false
		}
	}
	return true
}

func (h *Holder) scrubGroup(ctx context.Context, id group.ID) bool {
	if err := h.store.VerifyLease(id); err != nil {
		h.conf.Log.Warn("a lease was not verified", "error", err)
	}
	for number := range uint16(group.MaxPacks) {
		g, ok := h.store.Holding(id)
		if !ok {
			break
		}
		if !g.Held.Has(number) {
			continue
		}
		if !h.quiet(ctx) {
			return false
		}
		h.scrubShard(id, number)
		if !pause(ctx, h.scrubPause(g.ShardSize())) {
			return false
		}
	}
	return ctx.Err() == nil
}

func (h *Holder) scrubShard(id group.ID, number uint16) {
	err := h.store.Verify(id, number)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		h.conf.Log.Warn("a shard that was held is not there any more", "error", err)
	default:
		h.conf.Log.Warn("a shard was not verified", "error", err)
	}
}

// scrubPause is how long after a shard of this size the next one is read.
func (h *Holder) scrubPause(size int) time.Duration {
	return time.Duration(float64(size) / float64(h.conf.ScrubRate) * float64(time.Second))
}

// A holder that is always asked for something is scrubbed nevertheless: a shard
// waits no longer than quietPatience.
const (
	quietPatience = time.Minute
	quietLook     = time.Second
)

// quiet waits until no request is being served. It returns false when ctx has
// ended.
func (h *Holder) quiet(ctx context.Context) bool {
	for waited := time.Duration(0); waited < quietPatience && h.gate.busy(); waited += quietLook {
		if !pause(ctx, quietLook) {
			return false
		}
	}
	return ctx.Err() == nil
}

// pause waits; it returns false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
