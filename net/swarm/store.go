package swarm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"skep/chunker/group"
	"skep/net/client"
)

// Lease hands a lease to the holders of a group and returns the slots whose
// holders took it. It fails with ErrTooFew if not even k did.
func (s *Swarm) Lease(ctx context.Context, g group.Group, lease []byte) (group.SlotSet, error) {
	var out group.SlotSet
	var mu sync.Mutex // guards out
	var why error
	s.each(ctx, g.Slots, func(ctx context.Context, slot int, p group.PeerKey) {
		_, err := s.c.Holders.Admit(ctx, p, lease, uint8(slot))
		s.note(p, err, 0)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			out.Add(slot)
		} else {
			why = err
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

// Store hands the shards of a pack to the holders of its group, all at once. It
// returns the slots whose holders have their shard on the disk. When enough
// have, it waits for the others a little longer, at most as long again as it
// took; with fewer it fails with ErrTooFew. A holder that does not know the
// group is given the lease first.
func (s *Swarm) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte, enough int) (group.SlotSet, error) {
	begin := s.c.Now()
	ctx, cancel := context.WithTimeout(ctx, s.c.Timeout+storeTime(len(shards[0])))
	defer cancel()
	type ended struct {
		slot int
		err  error
	}
	ends := make(chan ended, len(g.Slots))
	running := 0
	for i, p := range g.Slots {
		if p.IsZero() {
			continue
		}
		running++
		go func() { ends <- ended{i, s.storeShard(ctx, p, lease, manifest, uint8(i), shards[i])} }()
	}
	var out group.SlotSet
	var why error
	var grace <-chan time.Time
	for ; running > 0; running-- {
		select {
		case e := <-ends:
			if e.err == nil {
				out.Add(e.slot)
			} else {
				why = e.err
			}
		case <-grace:
			cancel()
			grace = nil
			running++ // nobody ended
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

// storeTime is what a shard of this size may take beside the usual: a peer at
// 256 KiB/s is slow, but not lost.
func storeTime(size int) time.Duration { return time.Duration(size) * time.Second / (256 << 10) }

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
	ctx, cancel := context.WithTimeout(ctx, s.c.Timeout+storeTime(len(shard)))
	defer cancel()
	return s.storeShard(ctx, p, lease, manifest, slot, shard)
}
