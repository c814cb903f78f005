package wire_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/wire"
	"skep/test/storetest"
	"skep/test/vectors"
)

// exchangeVector is a request as peers send it, and its answer.
type exchangeVector struct {
	about   string
	request wire.Request
	sent    []byte // the request's body
	header  []byte // of the answer
	body    []byte
}

// exchanges are one of each kind, on the group of the owner of seed 1.
func exchanges(t *testing.T) []exchangeVector {
	t.Helper()
	o := storetest.NewOwner(1, 16, 1, 2)
	p := o.Pack(t, 3)
	shard := p.Shards[1]
	_, lease := o.Lease(5, storetest.Until, storetest.Dead(7))
	_, record := storetest.Record(2, 9, storetest.Until, 64)
	r, _ := storetest.Record(2, 9, storetest.Until, 64)
	var held, wanted group.Bitmap
	held.Add(3)
	wanted.Add(3)
	wanted.Add(200)
	release := group.Release{Holder: group.PeerKey(group.IDOf(storetest.Key(8))), Number: 6, Packs: held}.Sign(o.Key)
	statement := group.Statement{Group: o.ID, Slot: 1, Held: held, Lease: 5, Time: 1_800_000_000}.Sign(storetest.Key(8))
	outboard, root := erasure.Outboard(shard)
	var slice, samples bytes.Buffer
	nonce := erasure.Nonce{1, 2, 3}
	if err := erasure.WriteSlice(&slice, bytes.NewReader(shard), outboard, 0, len(shard)); err != nil {
		t.Fatal(err)
	}
	if err := erasure.WriteSamples(&samples, bytes.NewReader(shard), outboard, nonce, root, 1); err != nil {
		t.Fatal(err)
	}
	hello := &wire.Hello{Version: "0.1.0", Offered: 1 << 40, Free: 1 << 39, Region: "DE-BE", Domain: "home", Time: 1_800_000_000}
	get := wire.GetRequest{Group: o.ID, Number: 3, Slot: 1, Length: uint32(len(shard))}
	bare := get
	bare.Bare = true
	return []exchangeVector{
		{"hello", &wire.HelloRequest{}, nil, hello.Encode(), nil},
		{"admit", &wire.AdmitRequest{Lease: lease, Slot: 1}, nil, statement, nil},
		{"put", &wire.PutRequest{Manifest: p.Word, Slot: 1}, shard, nil, nil},
		{"get", &get, nil, nil, slice.Bytes()},
		{"get bare", &bare, nil, nil, shard},
		{"manifests", &wire.ManifestsRequest{Group: o.ID, Wanted: wanted}, nil, nil, wire.EncodeManifests([][]byte{p.Word})},
		{"statement", &wire.StatementRequest{Group: o.ID}, nil, statement, nil},
		{"prove", &wire.ProveRequest{Group: o.ID, Number: 3, Slot: 1, Nonce: nonce, Count: 1}, nil, nil, samples.Bytes()},
		{"put record", &wire.PutRecordRequest{Record: record}, nil, nil, nil},
		{"get record", &wire.GetRecordRequest{Key: r.Key()}, nil, record, nil},
		{"lease", &wire.LeaseRequest{Group: o.ID}, nil, lease, nil},
		{"release", &wire.ReleaseRequest{Release: release}, nil, statement, nil},
	}
}

// clipped is as much of a message as a vector has: of long bodies, the
// beginning. What they are, the vectors of chunker/erasure say.
func clipped(b []byte) []byte { return b[:min(len(b), 2048)] }

// The messages on the network do not change by accident, and each is read back
// as what was said.
func TestVectors(t *testing.T) {
	seen := map[wire.Kind]bool{}
	for _, x := range exchanges(t) {
		kind := x.request.Kind()
		seen[kind] = true
		name := strings.ReplaceAll(x.about, " ", "-")
		request := append(wire.AppendRequest(nil, x.request, len(x.sent)), x.sent...)
		answer := append(wire.AppendAnswer(nil, x.header, len(x.body)), x.body...)
		vectors.Check(t, name+"-request", fmt.Sprintf("request %d, %s; at most 2048 bytes of it", kind, x.about), clipped(request))
		vectors.Check(t, name+"-answer", fmt.Sprintf("answer to request %d, %s; at most 2048 bytes of it", kind, x.about), clipped(answer))
		m, n, err := wire.ReadRequest(bytes.NewReader(request))
		if err != nil || n != len(x.sent) || !reflect.DeepEqual(m, x.request) {
			t.Errorf("%s: read as %+v with %d bytes, %v", x.about, m, n, err)
		}
		header, n, err := wire.ReadAnswer(bytes.NewReader(answer), kind)
		if err != nil || n != len(x.body) || !bytes.Equal(header, x.header) {
			t.Errorf("%s: answer of %d bytes, %v", x.about, n, err)
		}
	}
	for k := wire.Kind(1); !strings.HasPrefix(k.String(), "kind"); k++ {
		if !seen[k] {
			t.Errorf("no vectors of %v", k)
		}
	}
	for s := wire.Absent; s <= wire.Crowded; s++ {
		vectors.Check(t, "refusal-"+s.String(), fmt.Sprintf("answer with status %d, %v", uint8(s), s), wire.AppendRefusal(nil, wire.Refusal{Status: s, Reason: "because"}))
	}
}

// The signed words of an exchange are words.
func TestVectorsHoldWords(t *testing.T) {
	for _, x := range exchanges(t) {
		var err error
		switch m := x.request.(type) {
		case *wire.AdmitRequest:
			if _, err = group.ParseLease(m.Lease); err == nil {
				_, err = group.ParseStatement(x.header)
			}
		case *wire.PutRequest:
			_, err = group.ParseManifest(m.Manifest)
		case *wire.PutRecordRequest:
			_, err = group.ParseSlotRecord(m.Record)
		case *wire.ReleaseRequest:
			_, err = group.ParseRelease(m.Release)
		case *wire.HelloRequest:
			_, err = wire.ParseHello(x.header)
		case *wire.ManifestsRequest:
			_, err = wire.ParseManifests(x.body)
		}
		if err != nil {
			t.Errorf("%s: %v", x.about, err)
		}
	}
}

// What another peer says of itself, or why it refuses, steers no terminal.
func TestTextsArePrintable(t *testing.T) {
	const evil = "a\x1b[2Jb\nc\u202ed\x00é"
	hello := wire.Hello{Version: evil, Region: evil, Domain: evil}
	h, err := wire.ParseHello(hello.Encode())
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = wire.ReadAnswer(bytes.NewReader(wire.AppendRefusal(nil, wire.Refusal{Status: wire.Full, Reason: evil})), wire.KindPut)
	for _, s := range []string{h.Version, h.Region, h.Domain, strings.TrimPrefix(err.Error(), "full: ")} {
		if s != "a[2Jbcdé" {
			t.Errorf("%q is left", s)
		}
	}
}

func FuzzParseHello(f *testing.F) {
	f.Add((&wire.Hello{Version: "1", Offered: 5, Free: 3, Region: "DE", Domain: "x"}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := wire.ParseHello(b)
		if err != nil {
			return
		}
		if again, err := wire.ParseHello(h.Encode()); err != nil || again != h {
			t.Fatalf("%+v came back as %+v, %v", h, again, err)
		}
	})
}

func FuzzParseManifests(f *testing.F) {
	f.Add(wire.EncodeManifests([][]byte{{1}, {2, 3}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		words, err := wire.ParseManifests(b)
		if err != nil {
			return
		}
		if again, err := wire.ParseManifests(wire.EncodeManifests(words)); err != nil || len(again) != len(words) {
			t.Fatalf("%d words came back as %d, %v", len(words), len(again), err)
		}
	})
}
