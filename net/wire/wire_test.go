package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"skep/chunker/erasure"
	"skep/chunker/group"
)

// samples are one valid request of each kind.
func samples() []Request {
	return []Request{
		&HelloRequest{},
		&AdmitRequest{Lease: []byte{1, 2}, Slot: 3},
		&PutRequest{Manifest: []byte{4, 5}, Slot: 6},
		&GetRequest{Group: group.ID{7}, Number: 8, Slot: 9, Offset: erasure.Unit, Length: 10},
		&GetRequest{Group: group.ID{7}, Number: 8, Slot: 9, Offset: erasure.Unit, Length: 10, Bare: true},
		&ManifestsRequest{Group: group.ID{11}, Wanted: group.Bitmap{12}},
		&StatementRequest{Group: group.ID{13}},
		&ProveRequest{Group: group.ID{14}, Number: 15, Slot: 16, Nonce: erasure.Nonce{17}, Count: 2},
		&PutRecordRequest{Record: []byte{18}},
		&GetRecordRequest{Key: group.SlotKey{19}},
		&LeaseRequest{Group: group.ID{20}},
		&ReleaseRequest{Release: []byte{21}},
	}
}

func TestRequests(t *testing.T) {
	seen := map[Kind]bool{}
	for _, m := range samples() {
		seen[m.Kind()] = true
		body := 0
		if m.Kind() == KindPut {
			body = 12345
		}
		b := AppendRequest(nil, m, body)
		got, n, err := ReadRequest(iotest.OneByteReader(bytes.NewReader(b)))
		if err != nil || n != body || !reflect.DeepEqual(got, m) {
			t.Errorf("%v came back as %+v with %d bytes, %v", m.Kind(), got, n, err)
		}
		if strings.HasPrefix(m.Kind().String(), "kind") {
			t.Errorf("kind %d has no name", m.Kind())
		}
		for cut := range len(b) {
			if _, _, err := ReadRequest(bytes.NewReader(b[:cut])); err == nil || cut > 0 && errors.Is(err, io.EOF) {
				t.Errorf("%v cut to %d of %d bytes: %v", m.Kind(), cut, len(b), err)
			}
		}
	}
	if len(seen) != len(requestLimits) || len(seen) != len(answerLimits) {
		t.Errorf("%d kinds in the samples, %d and %d have limits", len(seen), len(requestLimits), len(answerLimits))
	}
}

func TestRequestsOutOfRange(t *testing.T) {
	for name, m := range map[string]Request{
		"slot of admit":   &AdmitRequest{Slot: erasure.MaxShards},
		"slot of put":     &PutRequest{Slot: erasure.MaxShards},
		"slot of get":     &GetRequest{Slot: erasure.MaxShards, Length: 1},
		"pack of get":     &GetRequest{Number: group.MaxPacks, Length: 1},
		"empty get":       &GetRequest{},
		"unaligned get":   &GetRequest{Offset: 1, Length: erasure.Unit - 1},
		"get past shards": &GetRequest{Offset: MaxShard, Length: 1},
		"get that wraps":  &GetRequest{Offset: 1<<32 - erasure.Unit, Length: 1<<32 - 1},
		"no samples":      &ProveRequest{},
		"samples":         &ProveRequest{Count: erasure.MaxSamples + 1},
		"long lease":      &AdmitRequest{Lease: make([]byte, group.MaxLease+1)},
		"long manifest":   &PutRequest{Manifest: make([]byte, group.MaxManifest+1)},
		"long record":     &PutRecordRequest{Record: make([]byte, group.MaxSlotRecord+1)},
	} {
		if _, _, err := ReadRequest(bytes.NewReader(AppendRequest(nil, m, 0))); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{
		"kind 0":              {0, 0, 0, 0, 0, 0, 0, 0, 0},
		"kind 99":             {99, 0, 0, 0, 0, 0, 0, 0, 0},
		"huge header":         {byte(KindGet), 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"huge body":           {byte(KindPut), 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff},
		"body where none":     {byte(KindHello), 0, 0, 0, 1, 0, 0, 0, 1, 0x80},
		"header not CBOR":     {byte(KindHello), 0, 0, 0, 1, 0, 0, 0, 0, 0xff},
		"two fields for none": append([]byte{byte(KindHello), 0, 0, 0, 3, 0, 0, 0, 0}, 0x82, 1, 2),
	} {
		if _, _, err := ReadRequest(bytes.NewReader(b)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	hello := Hello{Version: "1", Offered: 10, Free: 5, Region: "DE-BE", Domain: "home", Time: 7}
	b := AppendAnswer(nil, hello.Encode(), 0)
	header, n, err := ReadAnswer(bytes.NewReader(b), KindHello)
	if err != nil || n != 0 {
		t.Fatal(err)
	}
	if got, err := ParseHello(header); err != nil || got != hello {
		t.Errorf("hello came back as %+v, %v", got, err)
	}
	for s := Absent; s <= Malformed; s++ {
		b := AppendRefusal(nil, Refusal{Status: s, Reason: strings.Repeat("é", 400)})
		_, _, err := ReadAnswer(bytes.NewReader(b), KindGet)
		var r *Refusal
		if !errors.As(err, &r) || r.Status != s || len(r.Reason) > MaxReason || !strings.HasPrefix(r.Error(), s.String()) {
			t.Errorf("%v came back as %v", s, err)
		}
	}
	if _, n, err := ReadAnswer(bytes.NewReader(AppendAnswer(nil, nil, MaxShard)), KindGet); err != nil || n != MaxShard {
		t.Errorf("largest get: %d, %v", n, err)
	}
	for name, b := range map[string][]byte{
		"unknown status": {9, 0, 0, 0, 0, 0, 0, 0, 0},
		"header":         AppendAnswer(nil, []byte{1}, 0),
		"body":           AppendAnswer(nil, nil, 1),
		"refusal":        {byte(Full), 0, 0, 0, 1, 0, 0, 0, 0, 0xff},
	} {
		if _, _, err := ReadAnswer(bytes.NewReader(b), KindPut); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := ReadAnswer(bytes.NewReader(nil), KindPut); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("no answer: %v", err)
	}
}

func TestHelloOutOfRange(t *testing.T) {
	for _, h := range []Hello{
		{Offered: -1}, {Offered: 1, Free: 2}, {Free: -1},
		{Version: strings.Repeat("x", MaxVersion+1)}, {Region: strings.Repeat("x", MaxRegion+1)}, {Domain: strings.Repeat("x", MaxDomain+1)},
	} {
		if _, err := ParseHello(h.Encode()); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

func TestManifests(t *testing.T) {
	words := [][]byte{{1}, {2, 3}, {}}
	got, err := ParseManifests(EncodeManifests(words))
	if err != nil || !reflect.DeepEqual(got, words) {
		t.Errorf("manifests came back as %v, %v", got, err)
	}
	most := make([][]byte, group.MaxPacks)
	for i := range most {
		most[i] = make([]byte, group.MaxManifest)
	}
	if b := EncodeManifests(most); len(b) > MaxManifests {
		t.Errorf("the most manifests have %d bytes, more than %d", len(b), MaxManifests)
	}
	if _, err := ParseManifests(EncodeManifests(make([][]byte, group.MaxPacks+1))); !errors.Is(err, ErrMalformed) {
		t.Errorf("too many: %v", err)
	}
}

func TestAlign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 5*erasure.Unit).Draw(t, "size")
		off := rapid.IntRange(0, size-1).Draw(t, "offset")
		n := rapid.IntRange(1, size-off).Draw(t, "length")
		from, to := Align(size, off, n)
		if from > off || to < off+n || !Aligned(size, from, to-from) || off-from >= erasure.Unit || to-off-n >= erasure.Unit {
			t.Fatalf("%d+%d of %d became %d…%d", off, n, size, from, to)
		}
	})
}

func FuzzReadRequest(f *testing.F) {
	for _, m := range samples() {
		f.Add(AppendRequest(nil, m, 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, body, err := ReadRequest(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, n, err := ReadRequest(bytes.NewReader(AppendRequest(nil, m, body)))
		if err != nil || n != body || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v came back as %+v, %v", m, again, err)
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	f.Add(AppendAnswer(nil, (&Hello{Version: "1"}).Encode(), 0), byte(KindHello))
	f.Add(AppendRefusal(nil, Refusal{Status: Full, Reason: "no"}), byte(KindPut))
	f.Fuzz(func(t *testing.T, b []byte, k byte) {
		header, n, err := ReadAnswer(bytes.NewReader(b), Kind(k))
		if err != nil {
			return
		}
		if lim := answerLimits[Kind(k)]; len(header) > lim.header || n > lim.body {
			t.Fatal("beyond the limits")
		}
		_, _ = ParseHello(header)
		_, _ = ParseManifests(header)
	})
}
