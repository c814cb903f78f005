package pack

import (
	"bytes"
	"reflect"
	"testing"

	"skep/chunker/block"
	"skep/chunker/link"
	"skep/chunker/secret"
	"skep/test/vectors"
)

// TestVector pins a whole pack of the smallest class: its id, which is random
// otherwise, is set.
func TestVector(t *testing.T) {
	sealer, read := block.NewSealer(secret.Key{0: 1, 31: 2}), secret.Key{3}
	b := NewBuilder(16, nil)
	for i := range idSize {
		b.buf[i] = 0xa0 + byte(i)
	}
	for i, codec := range []uint64{link.Raw, link.DagPB, link.CBOR} {
		noise := make([]byte, 50+1000*i)
		secret.Stream(secret.Key{byte(i)}, noise)
		s, err := sealer.Seal(codec, noise, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	want := b.Entries()
	class, pack, err := b.Seal(read)
	if err != nil || class != 16 {
		t.Fatalf("class %v: %v", class, err)
	}
	vectors.Check(t, "pack", "a pack of 64 KiB with id a0…af: blocks of 50, 1050 and 2050 bytes, raw, dag-pb and CBOR; read secret 03 00…", pack)
	got, err := ReadIndex(read, class, from(bytes.Clone(pack)))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}
