package state

import (
	"testing"

	"skep/test/vectors"
)

func TestVector(t *testing.T) {
	var b Batch
	b.Put([]byte("ikey"), []byte("value"))
	b.Put([]byte("empty"), nil)
	b.Delete([]byte("gone"))
	b.Patch([]byte("patched"), 300, []byte("part"))
	vectors.Check(t, "batch", "a batch: put, put of nothing, delete, patch at 300", b.buf)

	d, err := Decode(vectors.Load(t, "batch", "", func() []byte { return nil }))
	if err != nil || d.Len() != 4 {
		t.Fatalf("%d changes, %v", d.Len(), err)
	}
	s := open(t, t.TempDir())
	defer s.Close()
	put(t, s, "gone", "is there", "patched", "old")
	if _, err := s.Apply(d); err != nil {
		t.Fatal(err)
	}
	want := "empty= ikey=value patched=old" + string(make([]byte, 297)) + "part "
	if got := dump(t, s); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
