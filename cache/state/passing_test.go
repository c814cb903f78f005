package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// inIndexAlone makes tables with a row "a", "1" that only the index has.
func inIndexAlone(t *testing.T, opt Options) (dir string) {
	t.Helper()
	dir, opt.SegmentSize = t.TempDir(), 4<<10
	s, err := OpenWith(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "1")
	for range 3 {
		put(t, s, "b", strings.Repeat("2", 3<<10)) // a segment of the journal each
	}
	err = s.Forget(s.Seq())
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestIndexOutlivesPassingTrouble: an index that cannot be opened for want of
// something that has nothing to do with it is as it was when that is there again.
func TestIndexOutlivesPassingTrouble(t *testing.T) {
	dir := inIndexAlone(t, Options{})
	for _, reason := range passing {
		refuse := func(string) (storage.Storage, error) {
			return nil, &os.PathError{Op: "open", Path: "LOCK", Err: reason}
		}
		if s, err := OpenWith(dir, Options{Index: refuse}); !errors.Is(err, reason) {
			t.Fatalf("opened as %v: %v, not %v", s, err, reason)
		}
	}
	s := open(t, dir)
	defer s.Close()
	if v, there, err := s.Get([]byte("a")); err != nil || !there || string(v) != "1" || s.Rebuilt() {
		t.Fatalf("%q, %v, %v; rebuilt: %v", v, there, err, s.Rebuilt())
	}
}

// An index that is lost is told as lost also where the journal was cut and has nothing yet.
func TestLostBesideAnEmptyJournal(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "a", "1")
	first, err := s.Rotate(0)
	if err == nil {
		err = s.Forget(first)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if v, _, err := s.Get([]byte("a")); string(v) != "1" || err != nil || s.Rebuilt() {
		t.Errorf("%q, %v; rebuilt: %v", v, err, s.Rebuilt())
	}
	if err := errors.Join(s.Close(), os.RemoveAll(filepath.Join(dir, "index"))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s = open(t, dir)
		if !s.Rebuilt() {
			t.Error("nothing counts as lost")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
