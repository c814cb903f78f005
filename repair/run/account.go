package run

import (
	"context"
	"fmt"
	"slices"
	"time"

	"skep/chunker/group"
	"skep/repair/health"
)

// Group is a group as the owner's account has it.
type Group struct {
	group.Group
	Wanted group.Bitmap   // packs that are out and not dead
	Idle   group.Bitmap   // of these, those of which nothing is needed any more
	Held   []group.Bitmap // by slot: packs whose shards its holder acknowledged
	Local  group.Bitmap   // packs that can be built from what is kept here
	// Unknown are packs of which nobody has said yet where their shards lie.
	Unknown group.Bitmap
}

// Account is the owner's account of groups and packs. It is called
// concurrently. What it returns is the caller's.
type Account interface {
	// Groups lists the groups to be kept.
	Groups() ([]Group, error)
	// Lease returns the newest lease of a group, signed, and its number.
	Lease(id group.ID) (word []byte, number uint64, err error)
	// Manifest returns the signed manifest of a pack, asking holders if it is
	// not known here.
	Manifest(ctx context.Context, id group.ID, number uint16) ([]byte, error)
	// Pack returns the bytes of a pack that is kept here, and fails for others.
	Pack(id group.ID, number uint16) ([]byte, error)
	// Moved takes note that a slot has a new holder, and the one before is a former
	// one. What lies in the slot is told with Acked soon after.
	Moved(id group.ID, slot uint8, holder group.PeerKey) error
	// Left takes note that a peer holds shards of a slot that is not its own.
	Left(id group.ID, slot uint8, p group.PeerKey) error
	// Release returns a release of packs of the group for a former holder, signed, with the
	// number of a lease that is newer than any that was given to anybody before.
	// It fails for a holder.
	Release(ctx context.Context, id group.ID, p group.PeerKey, packs group.Bitmap) (word []byte, err error)
	// Released takes note that a former holder has nothing any more.
	Released(id group.ID, p group.PeerKey) error
	// Acked takes note of packs of which Groups did not know that their shards
	// lie in a slot, and of those of which it said so, and they do not. Of all
	// others, such as those that came since, it says nothing.
	Acked(id group.ID, slot uint8, there, gone group.Bitmap) error
}

// finding is what is believed of a slot, where the account says otherwise:
// packs whose shards lie there, and packs whose shards do not.
type finding struct {
	group       group.ID
	slot        uint8
	there, gone group.Bitmap
}

// takeAccount tells the state what the account says now, if it is time for
// that, and the account what has been found since. Caller holds step.
func (l *Loop) takeAccount() error {
	now := l.c.Now()
	if !l.again.Swap(false) && now.Sub(l.taken) < l.c.pause() {
		return nil
	}
	l.mu.Lock()
	clear(l.moved)
	l.mu.Unlock()
	all, err := l.c.Account.Groups()
	if err != nil {
		return err
	}
	l.taken = now
	for _, f := range l.takeGroups(all, now) {
		if err := l.c.Account.Acked(f.group, f.slot, f.there, f.gone); err != nil {
			return fmt.Errorf("what lies in slot %d of group %v was not noted: %w", f.slot, f.group, err)
		}
	}
	return nil
}

// takeGroups tells the state what has changed, and returns what the account
// does not know yet. A group of which a slot was moved while the account was
// being read is left for the next time: what was read may be from before.
func (l *Loop) takeGroups(all []Group, now time.Time) (found []finding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := make(map[group.ID]bool, len(all))
	for _, g := range all {
		if !g.valid() {
			l.c.Log.Error("a group of the account cannot be", "group", g.ID, "coding", g.Coding, "slots", len(g.Slots))
			continue
		}
		kept[g.ID] = true
		if l.moved[g.ID] || l.telling[g.ID] > 0 {
			continue
		}
		l.groups[g.ID] = g.Group
		if old, ok := l.given[g.ID]; !ok || !old.equal(g) {
			l.state.SetGroup(g.health(), now)
			l.given[g.ID] = g
		}
		found = append(found, l.differences(g)...)
	}
	for id := range l.groups {
		if !kept[id] {
			l.state.DropGroup(id)
			delete(l.groups, id)
			delete(l.given, id)
		}
	}
	return found
}

// differences lists the slots of which the state believes something else than
// the account. Caller holds mu.
func (l *Loop) differences(g Group) (found []finding) {
	known, _ := l.state.Group(g.ID)
	for i, said := range g.Held {
		held, said := known.Slots[i].Held, said.Within(g.Wanted)
		if held != said {
			found = append(found, finding{g.ID, uint8(i), held.Without(said), said.Without(held)})
		}
	}
	return found
}

// valid reports whether the state can take the group.
func (g Group) valid() bool {
	return g.Coding.Valid(g.Class) && len(g.Slots) == int(g.Coding.N) && len(g.Held) == len(g.Slots)
}

// equal reports whether the state would see no difference.
func (g Group) equal(o Group) bool {
	return g.Class == o.Class && g.Coding == o.Coding && g.Wanted == o.Wanted && g.Idle == o.Idle && g.Local == o.Local &&
		slices.Equal(g.Slots, o.Slots) && slices.Equal(g.Held, o.Held) && slices.Equal(g.Former, o.Former)
}

// health is the group as the state takes it.
func (g Group) health() health.Group {
	out := health.Group{ID: g.ID, Class: g.Class, Coding: g.Coding, Wanted: g.Wanted, Idle: g.Idle, Local: g.Local, Unknown: g.Unknown, Owned: true,
		Former: g.Former, Slots: make([]health.Slot, len(g.Slots))}
	for i, p := range g.Slots {
		out.Slots[i] = health.Slot{Holder: p, Held: g.Held[i]}
	}
	return out
}

// refOf names a pack of a group, with its manifest.
func (l *Loop) refOf(ctx context.Context, g group.Group, number uint16) (group.PackRef, error) {
	word, err := l.c.Account.Manifest(ctx, g.ID, number)
	if err != nil {
		return group.PackRef{}, fmt.Errorf("manifest of pack %d of group %v: %w", number, g.ID, err)
	}
	return group.PackRef{Group: g.ID, Number: number, Class: g.Class, Coding: g.Coding, Slots: g.Slots, Manifest: word}, nil
}
