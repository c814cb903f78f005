package dag

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"skep/chunker/link"
	"skep/chunker/secret"
)

// replaced is a Getter in which, from the n-th time on, a block reads as another.
type replaced struct {
	*memStore
	was, is link.Link
	from    int
	asked   int
}

func (r *replaced) Get(ctx context.Context, l link.Link) ([]byte, error) {
	if l == r.was {
		if r.asked++; r.asked >= r.from {
			l = r.is
		}
	}
	return r.memStore.Get(ctx, l)
}

// dirOf builds a directory of n entries, less those that are left out, where some
// have another record.
func dirOf(t *testing.T, s *memStore, n int, without, other string) link.Link {
	t.Helper()
	var changes []Change
	for i := range n {
		rec := smallInode(i)
		if name := fmt.Sprint(i); name != without {
			if name == other {
				rec.Mtime.Sec++
			}
			changes = append(changes, Change{name, &rec})
		}
	}
	root, err := EditDir(context.Background(), s, testNames, link.Link{}, changes)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Where the second reader gets other blocks than the first, a check says by which
// entry it saw that.
func TestCheckDirDiffers(t *testing.T) {
	ctx, s := context.Background(), newStore()
	for _, n := range []int{20, 3000} {
		root := dirOf(t, s, n, "", "")
		seen := 0
		count := func(string, Inode) error { seen++; return nil }
		if err := CheckDir(ctx, s, testNames, root, count); err != nil || seen != n {
			t.Fatalf("%d of %d entries: %v", seen, n, err)
		}
		for what, is := range map[string]link.Link{
			"an entry less":  dirOf(t, s, n, "7", ""),
			"an entry more":  dirOf(t, s, n+1, "", ""),
			"another record": dirOf(t, s, n, "", "7"),
			"no directory":   fileOf(t, s, 3).Root,
		} {
			err := CheckDir(ctx, &replaced{memStore: s, was: root, is: is, from: 2}, testNames, root, count)
			if !errors.Is(err, ErrDiffers) {
				t.Errorf("of %d entries, the second reader sees %s: %v", n, what, err)
			}
		}
	}
}

// A shard below the root is compared, too.
func TestCheckDirBelow(t *testing.T) {
	ctx, s := context.Background(), newStore()
	root := dirOf(t, s, 3000, "", "")
	d, err := loadDir(ctx, s, root)
	if err != nil {
		t.Fatal(err)
	}
	var shards []link.Link
	for i := range d.slots {
		if d.slots[i].isShard() {
			shards = append(shards, d.slots[i].shard)
		}
	}
	ignore := func(string, Inode) error { return nil }
	for from, want := range map[int]error{1: ErrCorrupt, 2: ErrDiffers, 3: ErrDiffers} { // ours, listed, looked up
		err := CheckDir(ctx, &replaced{memStore: s, was: shards[0], is: shards[1], from: from}, testNames, root, ignore)
		if !errors.Is(err, want) {
			t.Errorf("from the %d. time on, a shard is another: %v", from, err)
		}
	}
}

// What is missing is no difference, and an entry under a name that the secret does
// not give is found by none.
func TestCheckDirFails(t *testing.T) {
	ctx, s := context.Background(), newStore()
	ignore := func(string, Inode) error { return nil }
	gone := errors.New("is away")
	for _, n := range []int{20, 3000} {
		root := dirOf(t, s, n, "", "")
		if err := CheckDir(ctx, s, secret.Key{1}, root, ignore); !errors.Is(err, ErrCorrupt) {
			t.Errorf("under another secret: %v", err)
		}
		for after := range 4 {
			gets := 0
			s.fail = func(link.Link) error {
				if gets++; gets > after {
					return gone
				}
				return nil
			}
			err := CheckDir(ctx, s, testNames, root, ignore)
			if s.fail = nil; gets > after && !errors.Is(err, gone) {
				t.Errorf("of %d entries, after %d blocks: %v", n, after, err)
			}
		}
		if err := CheckDir(ctx, s, testNames, root, func(string, Inode) error { return gone }); !errors.Is(err, gone) {
			t.Errorf("the error of the caller comes back as %v", err)
		}
	}
	if err := CheckDir(ctx, s, testNames, link.Link{}, ignore); err != nil {
		t.Errorf("the empty directory: %v", err)
	}
}

// fileOf builds a file of n chunks that all differ.
func fileOf(t *testing.T, s *memStore, n int64) File {
	t.Helper()
	leaf := func(_ context.Context, i int64) (link.Link, error) { return rawLink(int(n<<16 | i)), nil }
	f, err := WriteFile(context.Background(), s, File{}, n*ChunkSize-5, []Run{{From: 0, To: n}}, leaf)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCheckFileDiffers(t *testing.T) {
	ctx, s := context.Background(), newStore()
	f := fileOf(t, s, 400)
	if err := CheckFile(ctx, s, f); err != nil {
		t.Fatal(err)
	}
	if err := CheckFile(ctx, s, File{}); err != nil {
		t.Errorf("the empty file: %v", err)
	}
	children, err := loadChildren(ctx, s, f.tree())
	if err != nil {
		t.Fatal(err)
	}
	for what, r := range map[string]*replaced{
		"longer":                  {was: f.Root, is: fileOf(t, s, 401).Root, from: 2},
		"shorter":                 {was: f.Root, is: fileOf(t, s, 399).Root, from: 2},
		"a directory":             {was: f.Root, is: dirOf(t, s, 5, "", ""), from: 2},
		"of other pieces":         {was: children[1].link, is: children[0].link, from: 2},
		"elsewhere after seeking": {was: children[1].link, is: children[0].link, from: 4},
	} {
		r.memStore = s
		if err := CheckFile(ctx, r, f); !errors.Is(err, ErrDiffers) {
			t.Errorf("the second reader sees it %s: %v", what, err)
		}
	}
	gone := errors.New("is away")
	s.fail = func(l link.Link) error {
		if l == children[1].link {
			return gone
		}
		return nil
	}
	if err := CheckFile(ctx, s, f); !errors.Is(err, gone) || strings.Contains(err.Error(), "another reader") {
		t.Errorf("a node that is away: %v", err)
	}
}
