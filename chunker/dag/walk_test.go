package dag

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"skep/chunker/link"
)

// manyEntries makes a directory of n entries, every tenth with a large record.
func manyEntries(t testing.TB, s *memStore, n int) link.Link {
	t.Helper()
	var changes []Change
	for i := range n {
		rec := smallInode(i)
		if i%10 == 0 {
			rec = bigInode(i)
		}
		changes = append(changes, Change{fmt.Sprint(i), &rec})
	}
	root, err := EditDir(context.Background(), s, testNames, link.Link{}, changes)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// TestWalkReadsAhead counts how many blocks are asked for at a time, on a clock
// that stands still while anything runs.
func TestWalkReadsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		root := manyEntries(t, s, 5000)
		s.onGet = func() { time.Sleep(10 * time.Millisecond) }
		start := time.Now()
		s.resetCounts()
		var order []string
		walk := func() {
			order = nil
			err := WalkDir(context.Background(), s, root, func(name string, _ Inode) error {
				order = append(order, name)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		walk()
		if s.concurrently != readAhead {
			t.Errorf("%d blocks at a time, want %d", s.concurrently, readAhead)
		}
		if took, alone := time.Since(start), time.Duration(s.gets)*10*time.Millisecond; took > alone/4 {
			t.Errorf("took %v, one after the other %v", took, alone)
		}
		first := slices.Clone(order)
		if walk(); !slices.Equal(order, first) {
			t.Error("the order differs from walk to walk")
		}
	})
}

// TestEditReadsAhead does the same for an edit that touches many shards.
func TestEditReadsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		root := manyEntries(t, s, 5000)
		s.onGet = func() { time.Sleep(10 * time.Millisecond) }
		var changes []Change
		for i := range 1000 {
			changes = append(changes, Change{Name: fmt.Sprint(i)})
		}
		s.resetCounts()
		if _, err := EditDir(context.Background(), s, testNames, root, changes); err != nil {
			t.Fatal(err)
		}
		if s.concurrently < 2 || s.concurrently > readAhead {
			t.Errorf("%d blocks at a time, want up to %d", s.concurrently, readAhead)
		}
	})
}

func TestWalkEnds(t *testing.T) {
	s := newStore()
	root := manyEntries(t, s, 3000)
	errStop, errGone := errors.New("stop"), errors.New("gone")

	n := 0
	err := WalkDir(context.Background(), s, root, func(string, Inode) error {
		if n++; n == 100 {
			return errStop
		}
		return nil
	})
	if err != errStop || n != 100 {
		t.Errorf("ended after %d: %v", n, err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	err = WalkDir(ctx, s, root, func(string, Inode) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}

	var gone int
	s.fail = func(l link.Link) error {
		if l.Codec == link.CBOR {
			return errGone
		}
		return nil
	}
	err = WalkDir(context.Background(), s, root, func(string, Inode) error { gone++; return nil })
	if !errors.Is(err, errGone) || errors.Is(err, ErrCorrupt) {
		t.Errorf("a record that is gone: %v", err)
	}
	if _, ok, err := LookupDir(context.Background(), s, testNames, root, "0"); ok || !errors.Is(err, errGone) {
		t.Errorf("a record that is gone: %v", err)
	}
	s.fail = func(l link.Link) error {
		if l != root {
			return errGone
		}
		return nil
	}
	if _, err = EditDir(context.Background(), s, testNames, root, []Change{{Name: "1"}, {Name: "2"}, {Name: "3"}}); !errors.Is(err, errGone) {
		t.Errorf("edit of a shard that is gone: %v", err)
	}
}

// failingPutter fails from some Put on.
type failingPutter struct {
	*memStore
	left int
}

var errFull = errors.New("full")

func (f *failingPutter) Put(ctx context.Context, codec uint64, plain []byte, refs []link.Link) (link.Link, error) {
	if f.left--; f.left < 0 {
		return link.Link{}, errFull
	}
	return f.memStore.Put(ctx, codec, plain, refs)
}

// TestPutFails lets each Put of an edit fail in turn.
func TestPutFails(t *testing.T) {
	ctx, s := context.Background(), newStore()
	root := manyEntries(t, s, 3000)
	rec := bigInode(1)
	changes := []Change{{"1", &rec}, {Name: "2"}, {"new", &rec}}
	leaf := func(_ context.Context, i int64) (link.Link, error) { return rawLink(int(i)), nil }
	f, err := WriteFile(ctx, s, File{}, 400*ChunkSize, []Run{{From: 0, To: 400}}, leaf)
	if err != nil {
		t.Fatal(err)
	}
	for left := range 100 {
		_, err1 := EditDir(ctx, &failingPutter{s, left}, testNames, root, changes)
		_, err2 := WriteFile(ctx, &failingPutter{s, left}, f, 600*ChunkSize, []Run{{From: 3, To: 4, Leaf: rawLink(77)}, {From: 400, To: 600}}, leaf)
		if err1 == nil && err2 == nil {
			if left < 3 {
				t.Fatalf("edits took %d blocks", left)
			}
			return
		}
		for _, err := range []error{err1, err2} {
			if err != nil && !errors.Is(err, errFull) {
				t.Fatalf("after %d blocks: %v", left, err)
			}
		}
	}
	t.Fatal("edits never end")
}
