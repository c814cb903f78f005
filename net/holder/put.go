package holder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"syscall"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/wire"
)

func (h *Holder) put(x *exchange, m *wire.PutRequest) error {
	word, err := group.ParseManifest(m.Manifest)
	if err != nil {
		return x.refuse(wire.Malformed, err.Error())
	}
	if x.body != word.ShardSize() {
		return x.refuse(wire.Malformed, fmt.Sprintf("a shard has %d bytes, not %d", word.ShardSize(), x.body))
	}
	g, ok := h.store.Holding(word.Group)
	if reason := h.placeable(&word, m.Slot, g, ok); reason != "" {
		return x.refuse(wire.Refused, reason)
	}
	release := func() {}
	if !g.Held.Has(word.Number) {
		look := func() (int64, group.Holding) {
			now, _ := h.store.Holding(word.Group)
			return h.roomFor(word.ShardSize()), now
		}
		switch h.room.reserve(&word, look) {
		case offerFull:
			return x.refuse(wire.Full, "no room")
		case promised:
			h.gate.hurry(x.began)
			return x.refuse(wire.Busy, "no room but for shards that are arriving")
		case overBudget:
			return x.refuse(wire.Refused, "beyond the budget of the lease")
		}
		release = sync.OnceFunc(func() { h.room.release(&word) })
	}
	defer release()
	body := &faithful{r: x}
	if err := h.store.PutShard(&word, m.Manifest, m.Slot, body); err != nil {
		if body.failed(err) {
			return body.err // the asker went away or stalled
		}
		return h.refuseStored(x, err)
	}
	release() // before the answer: the asker's next shard may need the room
	if g.Held.Count() == 0 {
		h.conf.Directory.Provide(word.Group)
	}
	return x.done(nil)
}

// placeable says why a shard may not be stored, or "".
func (h *Holder) placeable(m *group.Manifest, slot uint8, g group.Holding, known bool) string {
	switch {
	case !known || g.Word == nil:
		return "no lease for this group"
	case h.conf.Now().Unix() >= g.Last:
		return "the lease has ended"
	case int(slot) >= int(m.Coding.N) || slot != g.Slot && g.Held.Count() > 0:
		return fmt.Sprintf("the group is held in slot %d", g.Slot)
	case m.Number >= g.Lease.Packs:
		return "beyond the packs of the lease"
	case g.Dead.Has(m.Number):
		return "the pack is dead"
	}
	return ""
}

// faithful remembers the error of a reader, so that it can be told from those
// of the disk.
type faithful struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (f *faithful) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil {
		f.err = err
	}
	return n, err
}

// failed reports whether err, of a call that read from f, is the reader's.
func (f *faithful) failed(err error) bool {
	return f.err != nil && (errors.Is(err, f.err) || errors.Is(err, io.ErrUnexpectedEOF))
}

// refuseStored answers with what the store said.
func (h *Holder) refuseStored(x *exchange, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return x.refuse(wire.Absent, "")
	case errors.Is(err, group.ErrInvalid), errors.Is(err, erasure.ErrProof):
		return x.refuse(wire.Refused, err.Error())
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return x.refuse(wire.Full, "the disk is full")
	}
	h.conf.Log.Error("storage failed", "error", err)
	return x.refuse(wire.Refused, "storage failed")
}
