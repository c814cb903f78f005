package writeback

import (
	"testing"

	"skep/cache/blocks"
	"skep/cache/state"
	"skep/chunker/block"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
	"skep/chunker/secret"
)

// A block that is stored, but of which nobody can say where, is stored again: a locator
// without a group would be one into the commit's own pack.
func TestTailStoresAgainWhatItCannotLocate(t *testing.T) {
	st, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	e := &Engine{table: blocks.New(st), sealer: block.NewSealer(secret.Key{1})}
	plain := []byte("a piece of the index")
	s, err := e.sealer.Seal(link.CBOR, plain, nil)
	if err != nil {
		t.Fatal(err)
	}
	unknown := blocks.Pack{Group: group.ID{1}, Kind: group.Metadata}
	stored := blocks.Stored{Entry: pack.Entry{Link: s.Link, Tag: s.Tag, Offset: 16, Length: uint32(len(s.Ciphertext))}}
	if err := e.table.AddPack(unknown, nil, []blocks.Stored{stored}); err != nil {
		t.Fatal(err)
	}
	if err := e.table.Hold([]link.Link{s.Link}); err != nil {
		t.Fatal(err)
	}
	tail := &tailWriter{e: e, f: &filling{b: pack.NewBuilder(16, nil)}, ctx: t.Context()}
	at, err := tail.put(plain, nil)
	if err != nil {
		t.Fatal(err)
	}
	if at.Group == (group.ID{}) && len(tail.f.b.Entries()) == 0 {
		t.Errorf("it is said to be in the commit's own pack, at %d+%d, where it is not", at.Offset, at.Length)
	}
}
