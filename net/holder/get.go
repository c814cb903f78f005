package holder

import (
	"bufio"
	"bytes"
	"io"
	"sync"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/wire"
)

// Exchanges whose answers are made in memory, some MiB each, at once in total
// and for each peer.
const (
	heavyAll  = 8
	heavyEach = 2
)

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
