package swarm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"skep/chunker/group"
	"skep/net/client"
)

// Lease hands a lease to the holders of a group and returns the slots whose
// holders took it. It fails with ErrTooFew if not even k did. When k have, it waits for the
// others a little longer, at most as long again as it took.
func (s *Swarm) Lease(ctx context.Context, g group.Group, lease []byte) (group.SlotSet, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin := s.c.Now()
	var mu sync.Mutex // guards all below
	var out group.SlotSet
	var why error
	s.each(ctx, g.Slots, func(ctx context.Context, slot int, p group.PeerKey) {
		_, err := s.c.Holders.Admit(ctx, p, lease, uint8(slot))
		if ctx.Err() == nil || err == nil {
			s.note(p, err, 0)
		}
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			why = err
			return
		}
		out.Add(slot)
		if out.Count() == int(g.Coding.K) {
			time.AfterFunc(max(s.c.Grace, s.c.Now().Sub(begin)), cancel)
		}
	})
	if n := out.Count(); n < int(g.Coding.K) {
		return out, fmt.Errorf("%w: %d of %d took the lease (%w)", ErrTooFew, n, g.Coding.N, orNone(why))
	}
	return out, nil
}

// each calls fn for every slot that has a holder, all at once, and waits.
func (s *Swarm) each(ctx context.Context, slots []group.PeerKey, fn func(ctx context.Context, slot int, p group.PeerKey)) {
	ctx, cancel := context.WithTimeout(ctx, s.c.Timeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, p := range slots {
		if !p.IsZero() {
			wg.Go(func() { fn(ctx, i, p) })
		}
	}
	wg.Wait()
}

// Store hands the shards of a pack to the holders of its group, as many at once as our own
// line carries well, those of packs that came before first. It returns the slots whose
// holders have their shard on the disk. When enough have, it waits for the others a little
// longer, at most as long again as it took; with fewer it fails with ErrTooFew, when those
// that are left have not come on as the others did. A holder that does not know the group
// is given the lease first.
func (s *Swarm) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte, enough int) (group.SlotSet, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	size := len(shards[0])
	longest := s.c.Timeout + slowTime(size*len(shards))
	begin, began := s.c.Now(), make(chan struct{}) // when the first goes out
	begins := sync.OnceFunc(func() { close(began) })
	over := time.NewTimer(longest)
	over.Stop()
	defer over.Stop()
	ends := make(chan stored, len(g.Slots))
	gates := make([]*pushes, len(g.Slots)) // nil: nobody has the slot
	for i, p := range g.Slots {
		if !p.IsZero() {
			gates[i] = s.gate(p)
		}
	}
	hopeful := slices.Contains(gates, s.push)
	running := 0
	for i, gate := range gates {
		if gate == nil {
			continue
		}
		running++
		go func() {
			ends <- stored{i, gate.do(ctx, size, s.c.Now, func() error {
				if gate == s.push || !hopeful {
					begins()
				}
				return s.storeShard(ctx, g.Slots[i], lease, manifest, uint8(i), shards[i])
			})}
		}()
	}
	all := running
	var out group.SlotSet
	var why error
	var grace <-chan time.Time
	for ; running > 0; running-- {
		select {
		case <-began:
			begin, began = s.c.Now(), nil
			over.Reset(longest)
			running++ // nobody ended
		case e := <-ends:
			if e.err != nil {
				if errors.Is(why, client.ErrFull) {
					break // want of room says more than who else failed
				}
				why = e.err
				if cause := context.Cause(ctx); cause != nil && ended(why) {
					why = cause // not that it was ended
				}
				break
			}
			out.Add(e.slot)
			took := s.c.Now().Sub(begin)
			over.Reset(s.storeTime(size, took, out.Count(), all))
		case <-grace:
			cancel(nil)
			grace = nil
			running++
		case <-over.C:
			cancel(context.DeadlineExceeded)
			running++
		}
		if out.Count() >= enough && grace == nil && ctx.Err() == nil {
			t := time.NewTimer(max(s.c.Grace, s.c.Now().Sub(begin)))
			defer t.Stop()
			grace = t.C
		}
	}
	if out.Count() < enough {
		return out, fmt.Errorf("%w: %d of %d, %d would do (%w)", ErrTooFew, out.Count(), len(shards), enough, orNone(why))
	}
	return out, nil
}

// stored is the end of one shard of a pack.
type stored struct {
	slot int
	err  error
}

// usualTime is what a shard of this size may take beside the usual: a peer at
// 256 KiB/s is slow, but not lost.
func usualTime(size int) time.Duration { return time.Duration(size) * time.Second / (256 << 10) }

// slowTime is what so many bytes may take beside the usual through our own line: of one
// that does 1 Mbit/s, others may have two thirds. Who comes on by less than wire.Patience
// asks for is given up long before.
func slowTime(size int) time.Duration { return time.Duration(size) * time.Second / (40 << 10) }

// storeTime is how much longer a pack may take of which so many of all shards took so long,
// until one more is there: as long as a peer may that is alone; four times as long as all
// will take at that pace, as they share our own line with those of other packs; or as
// long as those that are out with it take through a line that is slow, as who was so fast
// may be near.
func (s *Swarm) storeTime(size int, took time.Duration, some, all int) time.Duration {
	pace := 4*took*time.Duration(all)/time.Duration(some) - took
	return max(s.c.Timeout+usualTime(size)-took, pace, slowTime(size*min(all-some, firstPushes)))
}

// gate is through which shards go out to a peer. Who failed lately has one for himself and
// his like, and so takes nobody else's place, nor more of the line than a few do: it may
// have been the line that failed.
func (s *Swarm) gate(p group.PeerKey) *pushes {
	if s.shuns(p) {
		return s.failed
	}
	return s.push
}

func (s *Swarm) storeShard(ctx context.Context, p group.PeerKey, lease, manifest []byte, slot uint8, shard []byte) error {
	begin := s.c.Now()
	err := s.c.Holders.Put(ctx, p, manifest, slot, shard)
	if lease != nil && (errors.Is(err, client.ErrRefused) || errors.Is(err, client.ErrAbsent)) {
		if _, aerr := s.c.Holders.Admit(ctx, p, lease, slot); aerr != nil {
			s.note(p, aerr, 0)
			return aerr
		}
		err = s.c.Holders.Put(ctx, p, manifest, slot, shard)
	}
	if ctx.Err() == nil || err == nil {
		s.note(p, err, s.c.Now().Sub(begin))
	}
	if err == nil && s.c.Peers != nil {
		s.c.Peers.Took(p, int64(len(shard)))
	}
	return err
}

// StoreShard brings one shard to one peer, with the lease of its group.
func (s *Swarm) StoreShard(ctx context.Context, p group.PeerKey, lease, manifest []byte, slot uint8, shard []byte) error {
	return s.gate(p).do(ctx, len(shard), s.c.Now, func() error {
		ctx, cancel := context.WithTimeout(ctx, s.c.Timeout+slowTime(len(shard)))
		defer cancel()
		return s.storeShard(ctx, p, lease, manifest, slot, shard)
	})
}
