package state

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// TestIndexOutlivesPassingTrouble: an index that cannot be opened for want of
// something that has nothing to do with it is as it was when that is there again.
func TestIndexOutlivesPassingTrouble(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenWith(dir, Options{SegmentSize: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "1")
	for range 3 {
		put(t, s, "b", strings.Repeat("2", 3<<10)) // a segment of the journal each
	}
	err = s.Forget(s.Seq()) // now only the index knows a
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	for _, reason := range passing {
		refuse := func(string) (storage.Storage, error) {
			return nil, &os.PathError{Op: "open", Path: "LOCK", Err: reason}
		}
		if s, err := OpenWith(dir, Options{Index: refuse}); !errors.Is(err, reason) {
			t.Fatalf("opened as %v: %v, not %v", s, err, reason)
		}
	}
	s = open(t, dir)
	defer s.Close()
	if v, there, err := s.Get([]byte("a")); err != nil || !there || string(v) != "1" || s.Rebuilt() {
		t.Fatalf("%q, %v, %v; rebuilt: %v", v, there, err, s.Rebuilt())
	}
}
