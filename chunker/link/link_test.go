package link_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"pgregory.net/rapid"

	"skep/chunker/link"
)

func draw(t *rapid.T) link.Link {
	l := link.Link{Codec: rapid.SampledFrom([]uint64{link.Raw, link.DagPB, link.CBOR}).Draw(t, "codec")}
	copy(l.Hash[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash"))
	copy(l.Key[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
	return l
}

func TestForms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := draw(t)
		if got, err := link.FromCID(l.CID()); err != nil || got != l {
			t.Fatalf("as a CID: %v", err)
		}
		b := l.Append([]byte("before"))
		if len(b) != 6+link.EncodedSize || string(b[:6]) != "before" {
			t.Fatalf("%d bytes", len(b))
		}
		var got link.Link
		if err := got.UnmarshalBinary(b[6:]); err != nil || got != l {
			t.Fatalf("in short form: %v", err)
		}
		if m, err := l.MarshalBinary(); err != nil || string(m) != string(b[6:]) {
			t.Fatalf("MarshalBinary differs: %v", err)
		}
		n := rapid.IntRange(0, 200).Filter(func(n int) bool { return n != link.EncodedSize }).Draw(t, "length")
		if err := got.UnmarshalBinary(make([]byte, n)); !errors.Is(err, link.ErrNotLink) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	})
}

func TestZero(t *testing.T) {
	var l link.Link
	if !l.IsZero() || l.String() != "no link" {
		t.Errorf("the zero link is %v", l)
	}
	got := golden(link.Raw)
	if err := got.UnmarshalBinary(l.Append(nil)); err != nil || !got.IsZero() {
		t.Errorf("%v, %v", got, err)
	}
	b := golden(link.Raw).Append(nil)
	b[0] = 0
	if err := got.UnmarshalBinary(b); !errors.Is(err, link.ErrNotLink) {
		t.Errorf("no codec, and yet a hash: %v", err)
	}
	b[0] = 4
	if err := got.UnmarshalBinary(b); !errors.Is(err, link.ErrNotLink) {
		t.Errorf("an unknown codec: %v", err)
	}
}

// What is no sealed link is not taken for one.
func TestFromCIDRefuses(t *testing.T) {
	digest := func(code uint64, n int) multihash.Multihash {
		mh, err := multihash.Encode(make([]byte, n), code)
		if err != nil {
			t.Fatal(err)
		}
		return mh
	}
	for what, c := range map[string]cid.Cid{
		"undefined":     cid.Undef,
		"an address":    golden(link.Raw).Hash.Address(),
		"short digest":  cid.NewCidV1(cid.Raw, digest(link.MultihashCode, 32)),
		"long digest":   cid.NewCidV1(cid.Raw, digest(link.MultihashCode, 65)),
		"another hash":  cid.NewCidV1(cid.Raw, digest(multihash.SHA2_512, 64)),
		"version 0":     cid.NewCidV0(digest(multihash.SHA2_256, 32)),
		"unknown codec": cid.NewCidV1(cid.DagJSON, digest(link.MultihashCode, 64)),
	} {
		if l, err := link.FromCID(c); !errors.Is(err, link.ErrNotLink) || !l.IsZero() {
			t.Errorf("%s: %v, %v", what, l, err)
		}
	}
}

// A link prints its address, by whatever verb, and never its key.
func TestLinksDoNotPrintKeys(t *testing.T) {
	l := golden(link.DagPB) // the key is ff fe fd …
	want := l.Hash.Address().String()
	for _, v := range []any{l, &l, []link.Link{l}, struct{ L link.Link }{l}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			s := fmt.Sprintf(verb, v)
			if !strings.Contains(s, want) || strings.Contains(s, "fffefd") || strings.Contains(s, "255 254") {
				t.Errorf("%s of %T prints %s", verb, v, s)
			}
		}
	}
}

func FuzzFromCID(f *testing.F) {
	f.Add(golden(link.CBOR).CID().Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := cid.Cast(b)
		if err != nil {
			return
		}
		l, err := link.FromCID(c)
		if err != nil {
			return
		}
		if !l.CID().Equals(c) {
			t.Fatalf("%x comes back as %x", b, l.CID().Bytes())
		}
		l.Append(nil) // has a short form
	})
}
