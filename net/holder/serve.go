package holder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	skephost "skep/net/host"
	"skep/net/wire"
)

// exchange is one request being served.
type exchange struct {
	*pass
	io.ReadWriter
	body int // length of the request's body
}

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
	offered, _ := h.free()
	return &wire.Hello{
		Version: h.conf.Version, Region: h.conf.Region, Domain: h.conf.Domain,
		Offered: offered, Free: max(0, h.roomFor(wire.SmallShard+1)-h.room.reserved()), Time: h.conf.Now().Unix(),
	}
}

func (h *Holder) free() (offered, free int64) {
	offered, used := h.store.Room()
	return offered, max(0, offered-used)
}

// Who deletes has to publish that before anything comes free, which takes shards, but
// small ones: they alone get the last part of an offer, a 64th, or an eighth if that is
// less than leastKept.
const (
	keptForSmall = 64
	leastKept    = 4 << 20
)

// roomFor is how much of the offer is left to a shard of some size, what is promised to
// others included.
func (h *Holder) roomFor(shard int) int64 {
	offered, free := h.free()
	if shard > wire.SmallShard {
		free -= max(offered/keptForSmall, min(offered/8, leastKept))
	}
	return max(0, free)
}

// send sends a Done answer with a body.
func (x *exchange) send(header, body []byte) error {
	if _, err := x.Write(wire.AppendAnswer(nil, header, len(body))); err != nil {
		return err
	}
	_, err := x.Write(body)
	return err
}
