package dht_test

import (
	"encoding/binary"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"skep/chunker/group"
	"skep/net/dht"
	"skep/test/simnet"
	"skep/test/storetest"
)

const protocol = "/skep/kad/1.0.0"

// A message whose length is beyond all that the directory knows ends the stream
// at once: it is not waited for, and no memory is set aside for it.
func TestLongMessage(t *testing.T) {
	simnet.Simulate(t, 2, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		st, err := s.Peers[1].Host.NewStream(t.Context(), s.Peers[0].Host.ID(), protocol)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Write(binary.AppendUvarint(nil, 4<<20)); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if _, err := io.ReadAll(st); err == nil || time.Since(begin) > time.Second {
			t.Errorf("it was waited for %v, %v", time.Since(begin), err)
		}
	})
}

// A peer that answers with more than there can be is left, and others answer.
func TestLongAnswer(t *testing.T) {
	simnet.Simulate(t, 5, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		ctx := t.Context()
		_, word := storetest.Record(1, 1, time.Now().Add(24*time.Hour).Unix(), 500)
		if err := s.Peers[1].DHT.PutRecord(ctx, word); err != nil {
			t.Fatal(err)
		}
		s.Peers[2].Host.SetStreamHandler(protocol, func(st network.Stream) {
			_, _ = st.Write(binary.AppendUvarint(nil, 4<<20))
		})
		r, _ := storetest.Record(1, 1, time.Now().Add(24*time.Hour).Unix(), 500)
		begin := time.Now()
		if _, err := s.Peers[4].DHT.GetRecord(ctx, r.Key()); err != nil || time.Since(begin) > 15*time.Second {
			t.Errorf("the record was found after %v, %v", time.Since(begin), err)
		}
	})
}

// Records under a key that is not theirs, unsigned, or older, change nothing.
func TestForgedRecords(t *testing.T) {
	s := simnet.Loopback(t, 4, simnet.Config{})
	ctx := t.Context()
	end := time.Now().Add(24 * time.Hour).Unix()
	r, word := storetest.Record(1, 5, end, 500)
	if err := s.Peers[1].DHT.PutRecord(ctx, word); err != nil {
		t.Fatal(err)
	}
	_, older := storetest.Record(1, 4, end, 500)
	for name, forged := range map[string][]byte{
		"older": older, "cut": word[:len(word)-1], "empty": nil, "noise": storetest.Bytes(3, 500),
		"too long": make([]byte, group.MaxSlotRecord+1),
	} {
		if err := s.Peers[2].DHT.PutRecord(ctx, forged); err == nil {
			t.Errorf("%s was put", name)
		}
	}
	for _, p := range s.Peers {
		if got, err := p.DHT.GetRecord(ctx, r.Key()); err != nil || string(got) != string(word) {
			t.Errorf("the record: %v", err)
		}
	}
}
