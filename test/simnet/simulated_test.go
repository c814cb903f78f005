package simnet

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/wire"
	"skep/test/storetest"
)

// An owner places a pack with five holders of a simulated swarm; one then sends
// altered bytes, one stalls, one vanishes. The asker tells them apart.
func TestBadPeers(t *testing.T) {
	Simulate(t, 7, Config{}, Link{}, func(t *testing.T, s *Swarm) {
		ctx := t.Context()
		asker := s.Peers[6].Client
		o := storetest.NewOwner(1, 18, 3, 5)
		p := o.Pack(t, 0)
		_, lease := o.Lease(1, until())
		for slot := range uint8(5) {
			holder := s.Peers[slot].Key
			if _, err := asker.Admit(ctx, holder, lease, slot); err != nil {
				t.Fatal(err)
			}
			wrong := bytes.Clone(p.Shards[slot])
			wrong[len(wrong)-1] ^= 1
			if err := asker.Put(ctx, holder, p.Word, slot, wrong); !errors.Is(err, client.ErrRefused) {
				t.Fatalf("put of altered bytes: %v", err)
			}
			if err := asker.Put(ctx, holder, p.Word, slot, p.Shards[slot]); err != nil {
				t.Fatal(err)
			}
		}
		const liar, staller, vanished = 0, 1, 2
		s.Peers[liar].Host.SetStreamHandler(wire.Protocol, lie)
		s.Peers[staller].Host.SetStreamHandler(wire.Protocol, func(network.Stream) {})
		s.Vanish(vanished)
		want := map[uint8]error{liar: client.ErrLied, staller: client.ErrUnreachable, vanished: client.ErrUnreachable}
		for slot := range uint8(5) {
			holder := s.Peers[slot].Key
			begin := time.Now()
			got, err := asker.Get(ctx, holder, &p.Manifest, slot, 0, 100)
			if !errors.Is(err, want[slot]) || err == nil && !bytes.Equal(got, p.Shards[slot][:100]) {
				t.Errorf("get from %d: %v", slot, err)
			}
			if took := time.Since(begin); took > 45*time.Second {
				t.Errorf("get from %d took %v", slot, took)
			}
			err = asker.Prove(ctx, holder, &p.Manifest, slot, erasure.Nonce{1}, 4)
			if !errors.Is(err, want[slot]) {
				t.Errorf("prove of %d: %v", slot, err)
			}
			_, err = asker.Statement(ctx, holder, o.ID)
			if !errors.Is(err, want[slot]) {
				t.Errorf("statement of %d: %v", slot, err)
			}
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := asker.Get(short, s.Peers[staller].Key, &p.Manifest, staller, 0, 100)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrUnreachable) {
			t.Errorf("get that the caller gave up: %v", err)
		}
	})
}

// lie answers every request with bytes of the right length and form.
func lie(s network.Stream) {
	defer s.Close()
	m, _, err := wire.ReadRequest(s)
	if err != nil {
		return
	}
	switch m := m.(type) {
	case *wire.GetRequest:
		body := make([]byte, erasure.SliceSize(erasure.NewCoding(3, 5).ShardSize(18), int(m.Offset), int(m.Length)))
		_, _ = s.Write(append(wire.AppendAnswer(nil, nil, len(body)), body...))
	case *wire.ProveRequest:
		body := make([]byte, 4*erasure.SliceSize(erasure.NewCoding(3, 5).ShardSize(18), 0, 1))
		_, _ = s.Write(append(wire.AppendAnswer(nil, nil, len(body)), body...))
	case *wire.StatementRequest:
		word := group.Statement{Group: m.Group}.Sign(storetest.Key(12345)) // somebody else's
		_, _ = s.Write(wire.AppendAnswer(nil, word, 0))
	}
}
