package writeback

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
)

// Sink is how packs leave the device.
type Sink interface {
	// Plan chooses coding and holders for a new group of packs of a class and kind;
	// ErrTooFew or ErrNoRoom if there are none.
	Plan(ctx context.Context, class erasure.Class, kind group.Kind) (erasure.Coding, []group.PeerKey, error)
	// Lease hands a lease to the holders of a group, and returns the slots
	// whose holders took it.
	Lease(ctx context.Context, g group.Group, lease []byte) (group.SlotSet, error)
	// Store hands the shards of one pack to the holders of its group, and to
	// those that do not know the group yet its lease. It returns the slots whose
	// holders have their shard on the disk; an error, ErrTooFew among others, if
	// these are not enough to call the pack safe. Then the shards are the
	// caller's again.
	Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error)
}

// ErrTooFew says that too few holders took their shard.
var ErrTooFew = errors.New("too few holders")

// ErrNoRoom says that they would have, but for want of room.
var ErrNoRoom = fmt.Errorf("%w with room", ErrTooFew)

var errWeak = errors.New("no holders with which it would be safer took it")

// placement is where a pack came to lie.
type placement struct {
	group    group.Group
	number   uint16
	manifest []byte
	acked    group.SlotSet
}

type groupKind struct {
	class erasure.Class
	kind  group.Kind
}

// storePack codes a pack and hands it to the holders of a group with room for
// one more; if too few of these answer, to those of the group that was left for it, or
// of a new one. Strong says that it is stored only where it is clearly safer than
// elsewhere, and survives the loss of a holder.
func (e *Engine) storePack(ctx context.Context, kind group.Kind, class erasure.Class, bytes []byte, strong bool) (placement, error) {
	var firstErr error
	k, fresh := groupKind{class, kind}, false
	for range 3 {
		g, number, err := e.nextNumber(ctx, k, fresh, strong)
		if err == nil {
			err = e.cfg.State.Sync() // before anybody sees the number
		}
		if err != nil {
			return placement{}, errors.Join(firstErr, err)
		}
		p, err := e.storeIn(ctx, g, number, kind, bytes)
		if err == nil {
			e.vain.Store(0)
			e.tookOne(k, g.ID)
			if strong && !hasSpare(g, p.acked.Count()) {
				err = errWeak
			}
			return p, err
		}
		if ctx.Err() != nil || !errors.Is(err, ErrTooFew) {
			return placement{}, err
		}
		firstErr = err
		back, err := e.fallBack(ctx, k, g.ID)
		if err != nil {
			return placement{}, errors.Join(firstErr, err)
		}
		fresh = !back
	}
	return placement{}, firstErr
}

func (e *Engine) storeIn(ctx context.Context, g group.Group, number uint16, kind group.Kind, bytes []byte) (placement, error) {
	room := e.buffers.get(g.Coding.Room(g.Class))
	defer e.buffers.put(room)
	shards := g.Coding.Split(g.Class, bytes, room)
	var roots []erasure.Root
	err := e.pace.work(ctx, func() (err error) {
		roots, err = g.Coding.EncodeRoots(shards)
		return err
	})
	if err != nil {
		return placement{}, err
	}
	m := group.Manifest{Number: number, Class: g.Class, Coding: g.Coding, Roots: roots}
	p := placement{group: g, number: number, manifest: m.Sign(group.KeyOf(e.cfg.Root, g.Nonce))}
	if kind == group.Metadata {
		e.keepHere(g.ID, number, bytes)
	}
	e.uplink.begin(e.now())
	p.acked, err = e.cfg.Sink.Store(ctx, g, e.LeaseOf(g), p.manifest, shards)
	if err != nil {
		e.uplink.end(e.now(), 0)
		e.dropHere(g.ID, number)
		return p, fmt.Errorf("pack %d of a group of %v, %v: %w", number, g.Class, g.Coding, err)
	}
	e.uplink.end(e.now(), int64(len(bytes)))
	e.sent(int64(len(bytes)))
	return p, nil
}

// keepHere keeps a pack on this device, too, to be read sooner. A full disk is no reason
// to keep back what will free some of it once it is out.
func (e *Engine) keepHere(id group.ID, number uint16, pack []byte) {
	if err := e.packs.Put(id, number, pack); err != nil {
		e.cfg.Log.Info("a pack of metadata is with holders alone", "group", id, "number", number, "err", err)
	}
}

// dropHere lets go of a pack that too few holders took: each try has a number of its own.
func (e *Engine) dropHere(id group.ID, number uint16) {
	if err := e.packs.Remove(id, number); err != nil {
		e.cfg.Log.Info("a pack that did not go out is left here", "group", id, "number", number, "err", err)
	}
}

// nextNumber reserves the next pack number in a group of this class and kind,
// founding one if there is none with room, or if fresh says so, and leaving a weak one
// for a better one; strong says that none is reserved in a weak one. A number is
// never given out twice, even if the process ends before it is used, or, once it
// was flushed, the power: a holder takes one manifest a number.
func (e *Engine) nextNumber(ctx context.Context, k groupKind, fresh, strong bool) (group.Group, uint16, error) {
	if err := e.groups.Acquire(ctx, 1); err != nil {
		return group.Group{}, 0, err
	}
	defer e.groups.Release(1)
	g, ok := e.current[k]
	if fresh && !e.mayFound() {
		return group.Group{}, 0, errInVain
	}
	if !ok || fresh || g.Packs >= group.MaxPacks {
		var err error
		if g, err = e.found(ctx, k); err != nil {
			return group.Group{}, 0, err
		}
	} else {
		g = e.improve(ctx, k, g)
	}
	e.current[k] = g
	if strong && (e.isWeakNow(g) || !hasSpare(g, e.there(g))) {
		return group.Group{}, 0, errWeak
	}
	g, number, err := e.table.NextPack(g.ID, func(row *group.Group) {
		if leaseDue(*row, e.now()) {
			lease(row, e.now())
		}
	})
	if err != nil {
		return group.Group{}, 0, err
	}
	e.current[k] = g
	return g, number, nil
}

const (
	// freshInVain is how many groups are founded one after the other because too few
	// holders took a pack, and none of them took one either.
	freshInVain = 6
	// freshRest is how long after the last of them another one is founded: until then
	// packs are brought to the one that is there.
	freshRest = 10 * time.Minute
)

var errInVain = errors.New("other holders were tried, too, and will be again later")

// mayFound reports whether a group may be founded because holders of another failed.
// An uplink that is too slow, say, fails all alike, and holders keep account of every
// group. e.groups is held.
func (e *Engine) mayFound() bool {
	if e.vain.Load() >= freshInVain && e.now().Sub(e.freshAt) < freshRest {
		return false
	}
	e.vain.Add(1)
	e.freshAt = e.now()
	return true
}

// ensureGroup founds a group of this class and kind if there is none with room, or
// only a weak one.
func (e *Engine) ensureGroup(ctx context.Context, k groupKind) error {
	if err := e.groups.Acquire(ctx, 1); err != nil {
		return err
	}
	defer e.groups.Release(1)
	if g, ok := e.current[k]; ok && g.Packs < group.MaxPacks {
		e.current[k] = e.improve(ctx, k, g)
		return nil
	}
	g, err := e.found(ctx, k)
	if err == nil {
		e.current[k] = g
	}
	return err
}

// found begins a group: coding and holders by the plan, a key of its own, and a
// lease that its holders accepted.
func (e *Engine) found(ctx context.Context, k groupKind) (group.Group, error) {
	coding, slots, err := e.cfg.Sink.Plan(ctx, k.class, k.kind)
	if err != nil {
		return group.Group{}, err
	}
	g := group.Group{Founder: e.self(), Class: k.class, Kind: k.kind, Coding: coding, Slots: slots}
	lease(&g, e.now())
	_, _ = rand.Read(g.Nonce[:])
	g.ID = group.IDOf(group.KeyOf(e.cfg.Root, g.Nonce))
	if _, err := e.cfg.Sink.Lease(ctx, g, e.LeaseOf(g)); err != nil {
		return group.Group{}, fmt.Errorf("new group of %v, %v: %w", k.class, coding, err)
	}
	return g, e.table.PutGroup(g)
}

// self is this device.
func (e *Engine) self() group.PeerKey {
	return group.PeerKey(e.cfg.Device.Public().(ed25519.PublicKey))
}

// loadGroups finds, after a start, the groups that packs can still be added to: of
// each class and kind the best.
func (e *Engine) loadGroups() error {
	all, err := e.table.Groups()
	if err != nil {
		return err
	}
	for _, g := range all {
		k := groupKind{g.Class, g.Kind}
		if cur, ok := e.current[k]; e.takes(g) && (!ok || goesBefore(g, cur)) {
			e.current[k] = g
		}
	}
	return nil
}

// takes reports whether this device may add a pack to a group.
func (e *Engine) takes(g group.Group) bool { return g.Founder == e.self() && g.Packs < group.MaxPacks }

// goesBefore reports whether packs are rather added to one group than to another: it
// survives more losses, or has more already.
func goesBefore(a, b group.Group) bool {
	if pa, pb := a.Coding.N-a.Coding.K, b.Coding.N-b.Coding.K; pa != pb {
		return pa > pb
	}
	return a.Packs > b.Packs
}
