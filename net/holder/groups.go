package holder

import (
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/wire"
)

func (h *Holder) admit(x *exchange, m *wire.AdmitRequest) error {
	l, err := group.ParseLease(m.Lease)
	if err != nil {
		return x.refuse(wire.Malformed, err.Error())
	}
	now := h.conf.Now()
	switch {
	case now.Unix() >= l.Until:
		return x.refuse(wire.Refused, "the lease has ended, by the clock here")
	case l.Until > now.Add(h.conf.KeepLease).Unix():
		return x.refuse(wire.Refused, "the lease ends too far ahead: is the clock of who made it right?")
	}
	g, refusal, err := h.take(x.from, l, m)
	switch {
	case err != nil:
		return h.refuseStored(x, err)
	case refusal != nil:
		return x.refuse(refusal.Status, refusal.Reason)
	}
	if g.Held.Count() > 0 {
		h.conf.Directory.Provide(l.Group)
	} else if g.Over() {
		h.conf.Directory.StopProviding(l.Group)
	}
	return h.state(x, &g)
}

// take stores a checked lease, of a new group only if that is admissible.
func (h *Holder) take(from group.PeerKey, l group.Lease, m *wire.AdmitRequest) (group.Holding, *wire.Refusal, error) {
	h.ending.RLock()
	defer h.ending.RUnlock()
	if _, known := h.store.Holding(l.Group); !known {
		if l.Dead == group.AllPacks { // it is over, and need not be kept in mind
			return group.Holding{ID: l.Group, Slot: m.Slot, Lease: l}, nil, nil
		}
		h.admitting.Lock()
		defer h.admitting.Unlock()
		if r := h.admissible(from, l, m.Slot); r != nil {
			return group.Holding{}, r, nil
		}
	}
	g, err := h.store.Admit(l, m.Lease, m.Slot, from)
	if err == nil && h.accounts.add(&g) {
		h.forgetOver()
	}
	return g, nil, err
}

// forgetOver forgets groups that are over, as long as there are too many. Nothing
// of them is here; but packs that they once had an older lease can bring again.
func (h *Holder) forgetOver() {
	for {
		id, ok := h.accounts.eldestOver(h.conf.Over)
		if !ok {
			return
		}
		h.conf.Directory.StopProviding(id)
		if err := h.store.Drop(id); err != nil {
			h.conf.Log.Warn("a group that is over was not forgotten", "group", id, "error", err)
		}
		h.accounts.remove(id)
	}
}

// admissible says why a group that is new here may not come, or nil.
func (h *Holder) admissible(from group.PeerKey, l group.Lease, slot uint8) *wire.Refusal {
	if h.conf.Admit != nil {
		if err := h.conf.Admit(from, l, slot); err != nil {
			return &wire.Refusal{Status: wire.Refused, Reason: err.Error()}
		}
	}
	all, theirs := h.accounts.count(from)
	if all >= h.conf.Groups {
		return &wire.Refusal{Status: wire.Crowded, Reason: "too many groups"}
	}
	if theirs >= h.conf.PeerGroups {
		return &wire.Refusal{Status: wire.Crowded, Reason: "too many groups of this peer"}
	}
	if _, free := h.free(); free-h.room.reserved() < footprint(erasure.MinShard) {
		return &wire.Refusal{Status: wire.Full, Reason: "no room"}
	}
	return nil
}

func (h *Holder) statement(x *exchange, id group.ID) error {
	g, ok := h.store.Holding(id)
	if !ok {
		return x.refuse(wire.Absent, "")
	}
	return h.state(x, &g)
}

// state answers with a statement on a group.
func (h *Holder) state(x *exchange, g *group.Holding) error {
	if err := h.store.Settle(g.ID); err != nil {
		return h.refuseStored(x, err)
	}
	st := group.Statement{Group: g.ID, Slot: g.Slot, Held: g.Held, Lease: g.Lease.Number, Time: h.conf.Now().Unix()}
	return x.done(st.Sign(h.conf.Key))
}

func (h *Holder) lease(x *exchange, m *wire.LeaseRequest) error {
	g, ok := h.store.Holding(m.Group)
	if !ok || g.Word == nil {
		return x.refuse(wire.Absent, "")
	}
	return x.done(g.Word)
}

// release has shards of a group deleted, if its owner says so to this holder.
func (h *Holder) release(x *exchange, m *wire.ReleaseRequest) error {
	r, err := group.ParseRelease(m.Release)
	if err != nil {
		return x.refuse(wire.Malformed, err.Error())
	}
	if r.Holder != h.self {
		return x.refuse(wire.Refused, "the release is for another peer")
	}
	g, err := h.store.Release(r)
	if err != nil {
		return h.refuseStored(x, err)
	}
	if g.Held == (group.Bitmap{}) {
		h.conf.Directory.StopProviding(r.Group)
	}
	return h.state(x, &g)
}
