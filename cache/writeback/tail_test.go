package writeback

import (
	"testing"

	"skep/cache/blocks"
	"skep/cache/state"
	"skep/chunker/block"
	"skep/chunker/commit"
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

// Where the account cannot be read, nobody goes by the place that a locator names: it may be
// one that is left.
func TestLocateFailsWithTheAccount(t *testing.T) {
	st, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{table: blocks.New(st)}
	l := commit.Locator{Group: group.ID{1}, Link: link.Link{Hash: link.Hash{1}}}
	if at, err := e.locate(l); err != nil || at != l {
		t.Errorf("of what nobody knows: %v, %v", at, err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if at, err := e.locate(l); err == nil {
		t.Errorf("%v", at)
	}
}
