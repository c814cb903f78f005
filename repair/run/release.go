package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skep/chunker/group"
	"skep/net/client"
	"skep/repair/audit"
	"skep/repair/health"
)

// release has a former holder of a slot delete what it has of the group.
func (l *Loop) release(ctx context.Context, a health.Action) {
	err := l.giveBack(ctx, a)
	if err == nil {
		err = l.c.Account.Released(a.Group, a.Peer)
	}
	call, called := errors.AsType[*client.Error](err)
	if err == nil || called {
		l.met(ctx, a.Peer, err)
	}
	if err != nil {
		l.c.Log.Info("a former holder was not released", "peer", a.Peer, "group", a.Group, "slot", a.Slot, "err", err)
	}
	l.with(func(s *health.State, now time.Time) {
		if err == nil {
			s.Released(a)
			return
		}
		s.Unreleased(a, called && !spoke(call), now)
	})
}

var errNeeded = errors.New("what it has may be needed yet")

// giveBack returns nil when a former holder has nothing of a group.
func (l *Loop) giveBack(ctx context.Context, a health.Action) error {
	ctx, cancel := context.WithTimeout(ctx, l.c.Timeout)
	defer cancel()
	st, err := l.c.Holders.Statement(ctx, a.Peer, a.Group)
	switch {
	case errors.Is(err, client.ErrAbsent):
		return nil
	case err != nil:
		return err
	case st.Held == (group.Bitmap{}):
		return nil
	case !l.superfluous(st):
		return fmt.Errorf("slot %d: %w", st.Slot, errNeeded)
	}
	if err := l.replaced(ctx, st); err != nil {
		return fmt.Errorf("slot %d: %w", st.Slot, err)
	}
	word, err := l.c.Account.Release(ctx, a.Group, a.Peer, st.Held)
	if err != nil {
		return err
	}
	st, err = l.c.Holders.Release(ctx, a.Peer, word)
	if err == nil && st.Held != (group.Bitmap{}) {
		err = errors.New("it says that it has shards still")
	}
	return err
}

// superfluous reports whether nothing is lost if who made a statement, and has no
// slot, has nothing any more: the holder of the slot has all that is wanted, and all
// else is known to be dead. What the account does not know of, as another device may
// have added it lately, is none of ours to delete.
func (l *Loop) superfluous(st group.Statement) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	unknown := st.Held.Without(l.given[st.Group].Wanted).Without(l.groups[st.Group].Dead)
	return unknown == (group.Bitmap{}) && l.state.Superseded(st.Group, st.Slot)
}

// replaced asks the holder of a slot whether it has all that is wanted of what a
// former one has: what the account says of it may be of long ago. A few leaves of a
// shard that the former one is to delete it has to prove at once.
func (l *Loop) replaced(ctx context.Context, was group.Statement) error {
	l.mu.Lock()
	g, ok := l.state.Group(was.Group)
	whole, counter := l.groups[was.Group], l.c.Rand.Uint64()
	l.mu.Unlock()
	if !ok || g.Wanted == (group.Bitmap{}) {
		return nil
	}
	holder := g.Slots[was.Slot].Holder
	now, err := l.c.Holders.Statement(ctx, holder, was.Group)
	if err != nil {
		return fmt.Errorf("%w: its holder does not say what it has: %v", errNeeded, err) // that is not the former one's fault
	}
	if now.Slot != was.Slot || !now.Held.Contains(g.Wanted) {
		return fmt.Errorf("%w: its holder has less", errNeeded)
	}
	c, some := audit.Pick(l.c.Health.Seed, holder, counter, []audit.Holding{{
		Group: was.Group, Slot: was.Slot, Packs: was.Held.Within(g.Wanted), ShardSize: whole.ShardSize()}})
	if !some {
		return nil // all that it has is dead
	}
	if o := l.prove(ctx, health.Action{Kind: health.Prove, Peer: holder, Group: was.Group, Slot: was.Slot, Challenge: c}, whole); o != audit.Proved {
		return fmt.Errorf("%w: its holder was to prove that it has it: %v", errNeeded, o)
	}
	return nil
}

// leftBehind notes what a move that made nobody a holder left with the peer to which
// it brought shards; or what that peer has of another slot, and took none because of
// it.
func (l *Loop) leftBehind(ctx context.Context, a health.Action, stored group.Bitmap, why error) {
	_, refused := errors.AsType[*targetError](why)
	slot := a.Slot
	switch {
	case a.Kind != health.Move:
		return
	case stored != (group.Bitmap{}), ctx.Err() != nil: // it has some, or may
	case !refused:
		return
	default:
		ctx, cancel := context.WithTimeout(ctx, l.c.Timeout)
		defer cancel()
		st, err := l.c.Holders.Statement(ctx, a.Peer, a.Group)
		if err != nil || st.Held == (group.Bitmap{}) {
			return
		}
		slot = st.Slot
	}
	if err := l.c.Account.Left(a.Group, slot, a.Peer); err != nil {
		l.c.Log.Error("what a peer has without a slot was not noted", "group", a.Group, "slot", slot, "peer", a.Peer, "err", err)
	}
	l.Refresh()
}
