package holder

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"skep/chunker/erasure"
	"skep/chunker/group"
	skephost "skep/net/host"
	"skep/net/wire"
)

// exchange is one request being served.
type exchange struct {
	*pass
	io.ReadWriter
	body int // length of the request's body
}

// Exchanges whose answers are made in memory, some MiB each, at once in total
// and for each peer.
const (
	heavyAll  = 8
	heavyEach = 2
)

// serve reads one request and answers it. An error means that the stream is of
// no more use.
func (h *Holder) serve(ctx context.Context, s network.Stream) error {
	from, err := skephost.Key(s.Conn().RemotePeer())
	if err != nil {
		return err
	}
	now := time.Now()
	p := &pass{from: from, began: now, end: func() { _ = s.Reset() }}
	x := &exchange{pass: p, ReadWriter: &metered{wire.Patient(s, h.conf.Patience), p}}
	if !h.pace.take(from, now) {
		return x.refuse(wire.Busy, "too many requests in a second")
	}
	if !h.gate.enter(p) {
		return x.refuse(wire.Busy, "too many requests at once")
	}
	defer h.gate.leave(p)
	m, body, err := wire.ReadRequest(x)
	if errors.Is(err, wire.ErrMalformed) {
		return x.refuse(wire.Malformed, err.Error())
	}
	if err != nil {
		return err
	}
	x.body = body
	return h.answer(ctx, x, m)
}

func (h *Holder) answer(ctx context.Context, x *exchange, m wire.Request) error {
	switch m := m.(type) {
	case *wire.HelloRequest:
		return x.done(h.hello().Encode())
	case *wire.AdmitRequest:
		return h.admit(x, m)
	case *wire.PutRequest:
		return h.put(x, m)
	case *wire.GetRequest:
		return h.get(x, m)
	case *wire.ManifestsRequest:
		return h.manifests(x, m)
	case *wire.StatementRequest:
		return h.statement(x, m.Group)
	case *wire.LeaseRequest:
		return h.lease(x, m)
	case *wire.ReleaseRequest:
		return h.release(x, m)
	case *wire.ProveRequest:
		return h.prove(x, m)
	case *wire.PutRecordRequest:
		return h.putRecord(x, m)
	case *wire.GetRecordRequest:
		return h.getRecord(x, m)
	}
	panic(fmt.Sprintf("BUG: holder: no answer to %v", m.Kind()))
}

// done sends a Done answer without a body.
func (x *exchange) done(header []byte) error {
	_, err := x.Write(wire.AppendAnswer(nil, header, 0))
	return err
}

// refuse sends an answer that is not Done.
func (x *exchange) refuse(s wire.Status, reason string) error {
	_, err := x.Write(wire.AppendRefusal(nil, wire.Refusal{Status: s, Reason: reason}))
	return err
}

func (h *Holder) hello() *wire.Hello {
	offered, free := h.free()
	return &wire.Hello{
		Version: h.conf.Version, Region: h.conf.Region, Domain: h.conf.Domain,
		Offered: offered, Free: max(0, free-h.room.reserved()), Time: h.conf.Now().Unix(),
	}
}

func (h *Holder) free() (offered, free int64) {
	offered, used := h.store.Room()
	return offered, max(0, offered-used)
}

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
			_, free := h.free()
			now, _ := h.store.Holding(word.Group)
			return free, now
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

// shard finds a shard that is held in this slot.
func (h *Holder) shard(id group.ID, number uint16, slot uint8) (group.Holding, bool) {
	g, ok := h.store.Holding(id)
	return g, ok && g.Slot == slot && g.Held.Has(number)
}

func (h *Holder) get(x *exchange, m *wire.GetRequest) error {
	g, ok := h.shard(m.Group, m.Number, m.Slot)
	if !ok {
		return x.refuse(wire.Absent, "")
	}
	size, off, n := g.ShardSize(), int(m.Offset), int(m.Length)
	if !wire.Aligned(size, off, n) {
		return x.refuse(wire.Malformed, "range is not aligned")
	}
	if m.Bare {
		return h.getBare(x, m)
	}
	// The answer begins in a buffer, so that damage seen before it overflows
	// is still an honest Absent; later it ends the stream.
	w := answers.Get().(*bufio.Writer)
	out := &counter{w: x}
	w.Reset(out)
	defer func() { w.Reset(nil); answers.Put(w) }()
	_, _ = w.Write(wire.AppendAnswer(nil, nil, erasure.SliceSize(size, off, n)))
	if err := h.store.WriteSlice(w, m.Group, m.Number, off, n); err != nil {
		return h.broken(x, out, err)
	}
	return w.Flush()
}

// getBare answers with the bytes of a range alone. It begins with the first
// bytes that could be read, so that before it can still be a refusal.
func (h *Holder) getBare(x *exchange, m *wire.GetRequest) error {
	n := int(m.Length)
	out := &counter{w: &headed{w: x, head: wire.AppendAnswer(nil, nil, n)}}
	if err := h.store.WriteRange(out, m.Group, m.Number, int(m.Offset), n); err != nil {
		return h.broken(x, out, err)
	}
	return nil
}

// headed writes a head before the first bytes.
type headed struct {
	w    io.Writer
	head []byte
}

// Write implements io.Writer.
func (h *headed) Write(p []byte) (int, error) {
	if h.head != nil {
		if _, err := h.w.Write(h.head); err != nil {
			return 0, err
		}
		h.head = nil
	}
	return h.w.Write(p)
}

// broken ends an exchange whose answer the store could not complete.
func (h *Holder) broken(x *exchange, out *counter, err error) error {
	if out.err != nil {
		return out.err
	}
	h.conf.Log.Warn("shard could not be read", "error", err)
	if out.n > 0 {
		return err
	}
	return h.refuseStored(x, err)
}

var answers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 128<<10) }}

// counter counts what was written and keeps the error.
type counter struct {
	w   io.Writer
	n   int
	err error
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += n
	if err != nil {
		c.err = err
	}
	return n, err
}

func (h *Holder) prove(x *exchange, m *wire.ProveRequest) error {
	g, ok := h.shard(m.Group, m.Number, m.Slot)
	if !ok {
		return x.refuse(wire.Absent, "")
	}
	body := bytes.NewBuffer(make([]byte, 0, erasure.SamplesSize(g.ShardSize(), int(m.Count))))
	if err := h.store.WriteSamples(body, m.Group, m.Number, m.Nonce, int(m.Count)); err != nil {
		return h.broken(x, &counter{}, err)
	}
	return x.send(nil, body.Bytes())
}

// send sends a Done answer with a body.
func (x *exchange) send(header, body []byte) error {
	if _, err := x.Write(wire.AppendAnswer(nil, header, len(body))); err != nil {
		return err
	}
	_, err := x.Write(body)
	return err
}

func (h *Holder) manifests(x *exchange, m *wire.ManifestsRequest) error {
	g, ok := h.store.Holding(m.Group)
	if !ok {
		return x.refuse(wire.Absent, "")
	}
	if !h.heavy.enter(x.pass) {
		return x.refuse(wire.Busy, "too many long answers at once")
	}
	defer h.heavy.leave(x.pass)
	var words [][]byte
	for number := range uint16(group.MaxPacks) {
		if !m.Wanted.Has(number) || !g.Held.Has(number) {
			continue
		}
		w, err := h.store.Manifest(m.Group, number)
		if err != nil {
			h.conf.Log.Warn("manifest could not be read", "error", err)
			continue
		}
		words = append(words, w)
	}
	return x.send(nil, wire.EncodeManifests(words))
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

func (h *Holder) putRecord(x *exchange, m *wire.PutRecordRequest) error {
	r, err := group.ParseSlotRecord(m.Record)
	if err != nil {
		return x.refuse(wire.Malformed, err.Error())
	}
	if err := h.keep.put(&r, m.Record, x.from); err != nil {
		var full *fullError
		if errors.As(err, &full) {
			return x.refuse(wire.Full, full.Error())
		}
		if errors.Is(err, errRecord) {
			return x.refuse(wire.Refused, err.Error())
		}
		return h.refuseStored(x, err)
	}
	return x.done(nil)
}

func (h *Holder) getRecord(x *exchange, m *wire.GetRecordRequest) error {
	word, err := h.keep.get(m.Key)
	if err != nil {
		return h.refuseStored(x, err)
	}
	return x.done(word)
}
