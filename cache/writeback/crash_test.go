package writeback_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"skep/cache/blocks"
	"skep/cache/journal"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/test/memswarm"
)

// A recorder is the swarm of a device of which every state that others see is
// remembered, with the batch that the device had applied last by then.
type recorder struct {
	*memswarm.Swarm
	d *device

	mu    sync.Mutex // guards steps
	steps []step
}

type step struct {
	seq   uint64
	swarm *memswarm.Swarm
}

func (r *recorder) note() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, step{r.d.st.Seq(), r.Clone()})
	r.d.keepPacks()
}

func (r *recorder) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	defer r.note()
	return r.Swarm.Store(ctx, g, lease, manifest, shards)
}

func (r *recorder) Lease(ctx context.Context, g group.Group, lease []byte) (group.SlotSet, error) {
	defer r.note()
	return r.Swarm.Lease(ctx, g, lease)
}

func (r *recorder) Publish(ctx context.Context, h commit.Head) error {
	defer r.note()
	return r.Swarm.Publish(ctx, h)
}

// worlds are the swarms that a crash behind batch k may leave: before and after
// what the device did between it and the next.
func (r *recorder) worlds(k uint64) []*memswarm.Swarm {
	last := map[bool]*memswarm.Swarm{}
	for _, s := range r.steps {
		if s.seq < k {
			last[false] = s.swarm
		}
		if s.seq <= k {
			last[true] = s.swarm
		}
	}
	if last[false] == last[true] {
		return []*memswarm.Swarm{last[true].Clone()}
	}
	return []*memswarm.Swarm{last[false].Clone(), last[true].Clone()}
}

// keepPacks keeps the files of packs also after the device let go of them.
func (d *device) keepPacks() {
	all := filepath.Join(d.dir, "all-packs")
	_ = os.MkdirAll(all, 0o700)
	for _, e := range must(os.ReadDir(filepath.Join(d.dir, "packs"))) {
		_ = os.Link(filepath.Join(d.dir, "packs", e.Name()), filepath.Join(all, e.Name()))
	}
}

// errCut ends the reading of a journal where it is to be cut.
var errCut = errors.New("cut here")

// crashed returns a device as it is after the process ended behind batch k; files
// holds the backing files as of then.
func (d *device) crashed(t *testing.T, k uint64, files string, swarm *memswarm.Swarm) *device {
	t.Helper()
	out := &device{t: t, dir: t.TempDir(), swarm: swarm}
	if err := os.CopyFS(filepath.Join(out.dir, "files"), os.DirFS(files)); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(out.dir, "packs"), os.DirFS(filepath.Join(d.dir, "all-packs"))); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(out.dir, "state", "journal")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, s := range must(filepath.Glob(filepath.Join(d.dir, "state", "journal", "*.journal"))) {
		b := must(os.ReadFile(s))
		end, next, err := journal.Scan(b, func(n uint64, _ []byte) error {
			if n > k {
				return errCut
			}
			return nil
		})
		if err != nil && !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		if next <= 1 || next > k+1 {
			t.Fatalf("the journal is cut at %d instead of %d", next, k+1)
		}
		clear(b[end:])
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(s)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out.open(nil)
	t.Cleanup(out.close)
	return out
}

// audit compares the account with what the blocks say, and the holders with the
// account.
func (d *device) audit() {
	d.t.Helper()
	c, at, ok, err := writeback.LoadCommit(d.st)
	if err != nil || !ok {
		d.t.Fatalf("no commit: %v", err)
	}
	err = d.table.Audit([]link.Link{at.Link}, func(l link.Link) ([]link.Link, error) {
		plain, err := d.reader.Get(ctx, l)
		if err != nil || l.Codec == link.Raw {
			return nil, err
		}
		return writeback.Children(l, plain)
	}, func(f blocks.Fault) { d.t.Errorf("commit %d: %v", c.Number, f) })
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.tree.Audit(ctx, func(path, what string) { d.t.Errorf("%s: %s", path, what) }, nil); err != nil {
		d.t.Fatal(err)
	}
	for _, p := range d.swarm.Packs() {
		row, ok, err := d.table.Pack(p.Group, p.Number)
		if err != nil || !ok || row.Live == 0 {
			d.t.Errorf("holders keep pack %d of group %v, which nothing needs: %v", p.Number, p.Group, err)
		}
	}
}

// TestCrashes lives through a commit that changes, moves, deletes and folds, and
// cuts it behind each of its batches, or in short runs behind every third.
func TestCrashes(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := &device{t: t, dir: t.TempDir(), swarm: swarm}
	rec := &recorder{Swarm: swarm, d: d}
	d.sink, d.publish = rec, rec.Publish
	d.open(newDrive)
	t.Cleanup(d.close)

	want := map[string]string{"dir/": "", "dir/sub/": ""}
	put := d.putting(want)
	for i := range 8 {
		put(fmt.Sprintf("dir/f%d", i), random(uint64(i), 300_000))
	}
	put("dir/sub/small", []byte("as it was"))
	d.sync()
	dir, _ := d.parent("dir/x")
	for i := range 6 { // most of the first packs is not needed any more
		if err := d.tree.Unlink(ctx, dir, fmt.Sprintf("f%d", i)); err != nil {
			t.Fatal(err)
		}
		delete(want, fmt.Sprintf("dir/f%d", i))
	}
	put("dir/sub/small", []byte("as it is"))
	d.sync()
	put("dir/sub/new", random(77, 200_000))
	put("dir/sub/small", []byte("as it will be"))
	if err := d.tree.Rename(ctx, dir, "f7", tree.Root, "moved", 0); err != nil {
		t.Fatal(err)
	}
	want["moved"] = want["dir/f7"]
	delete(want, "dir/f7")
	files := filepath.Join(t.TempDir(), "files")
	if err := os.CopyFS(files, os.DirFS(filepath.Join(d.dir, "files"))); err != nil {
		t.Fatal(err)
	}
	rec.note()
	from := d.st.Seq()
	d.sync()
	to := d.st.Seq()
	check(t, d.committed(), want)
	d.audit()
	if t.Failed() {
		return
	}
	t.Logf("a commit of %d batches", to-from)
	step := uint64(1)
	if testing.Short() {
		step = 3
	}
	for k := from; k <= to; k += step {
		for i, w := range rec.worlds(k) {
			t.Run(fmt.Sprintf("%d-%d", k-from, i), func(t *testing.T) {
				c := d.crashed(t, k, files, w)
				check(t, c.listTree(), want)
				listCommit(t, w) // what somebody may recover meanwhile
				c.sync()
				check(t, c.committed(), want)
				check(t, c.listTree(), want)
				c.audit()
			})
		}
	}
}
