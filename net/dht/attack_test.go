package dht_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-msgio/pbio"

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

// A peer that answers each message, also those that ask nothing, with what is no answer,
// harms nobody: others answer.
func TestAnswersThatAreNone(t *testing.T) {
	for name, answers := range map[string]int{"one each": 1, "two each": 2} {
		t.Run(name, func(t *testing.T) {
			simnet.Simulate(t, 4, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
				ctx := t.Context()
				s.Peers[2].Host.SetStreamHandler(protocol, func(st network.Stream) {
					in, out := pbio.NewDelimitedReader(st, 1<<20), pbio.NewDelimitedWriter(st)
					var m pb.Message
					for in.ReadMsg(&m) == nil {
						for range answers {
							_ = out.WriteMsg(pb.NewMessage(m.GetType(), m.GetKey(), 0))
						}
					}
				})
				r, word := storetest.Record(1, 1, time.Now().Add(24*time.Hour).Unix(), 500)
				if err := s.Peers[1].DHT.PutRecord(ctx, word); err != nil {
					t.Fatal(err)
				}
				s.Peers[1].DHT.Provide(group.ID{1})
				time.Sleep(time.Minute)
				if got, err := s.Peers[0].DHT.GetRecord(ctx, r.Key()); err != nil || string(got) != string(word) {
					t.Errorf("the record: %v", err)
				}
			})
		})
	}
}

// Who is slow to hear what is announced is told no more at a time than it takes.
func TestAnnouncedToTheSlow(t *testing.T) {
	simnet.Simulate(t, 3, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		var open, most, told atomic.Int32
		s.Peers[2].Host.SetStreamHandler(protocol, func(st network.Stream) {
			defer st.Close()
			n := open.Add(1)
			defer open.Add(-1)
			most.Store(max(n, most.Load()))
			in := pbio.NewDelimitedReader(st, 1<<20)
			var m pb.Message
			for in.ReadMsg(&m) == nil {
				time.Sleep(100 * time.Millisecond)
				if told.Add(rank(m.GetType() == pb.Message_ADD_PROVIDER)); m.GetType() != pb.Message_ADD_PROVIDER {
					_ = pbio.NewDelimitedWriter(st).WriteMsg(pb.NewMessage(m.GetType(), m.GetKey(), 0))
				}
			}
		})
		var ids []group.ID
		for i := range byte(40) {
			ids = append(ids, group.ID{i + 1})
		}
		s.Peers[1].DHT.Provide(ids...)
		if err := s.Peers[1].DHT.Announced(t.Context()); err != nil || told.Load() != 40 || most.Load() > 2 {
			t.Errorf("%d of 40 were heard, %d at a time; %v", told.Load(), most.Load(), err)
		}
	})
}

func rank(yes bool) int32 {
	if yes {
		return 1
	}
	return 0
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

// Who floods the directory with requests waits for the answers, others do not.
func TestFloodOfRequests(t *testing.T) {
	simnet.Simulate(t, 3, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		const requests = 1000
		hostile, asked, honest := s.Peers[1].Host, s.Peers[0].Host, s.Peers[2].Host
		begin := time.Now()
		flood := func() {
			if took := ask(t, hostile, asked, requests); took < (requests-300)*time.Second/200 {
				t.Errorf("%d requests were answered in %v", requests, took)
			}
		}
		var flooding sync.WaitGroup
		flooding.Go(flood)
		time.Sleep(2 * time.Second)
		if took := ask(t, honest, asked, 10); took > time.Second {
			t.Errorf("10 requests of another peer were answered after %v", took)
		}
		flooding.Wait()
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

// ask sends so many requests of the directory at once, and returns how long the answers
// took.
func ask(t *testing.T, from, to host.Host, n int) time.Duration {
	begin := time.Now()
	st, err := from.NewStream(t.Context(), to.ID(), protocol)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer st.Reset()
	request := append([]byte{38, 8, 4, 18, 34}, storetest.Bytes(1, 34)...) // FIND_NODE
	if _, err := st.Write(bytes.Repeat(request, n)); err != nil {
		t.Error(err)
	}
	in := bufio.NewReader(st)
	for range n {
		length, err := binary.ReadUvarint(in)
		if err != nil {
			t.Error(err)
			break
		}
		_, _ = io.CopyN(io.Discard, in, int64(length))
	}
	return time.Since(begin)
}
