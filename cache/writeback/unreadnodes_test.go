package writeback_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"skep/chunker/group"
	"skep/test/memswarm"
)

// Whatever a recovered device cannot read any more of the old directories, nodes of
// files and pieces of the index: what it has all of it makes anew, and a commit
// needs no lost pack.
func TestLostNodesAreMadeAnew(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	first := newDevice(t, swarm)
	want := map[string]string{"dir/": "", "dir/sub/": "", "wide/": ""}
	for i := range 3 { // each commit has a segment, smaller than those before
		put := first.putting(want)
		for n := range 300 >> (2 * i) {
			put(fmt.Sprintf("wide/%d-%d", i, n), random(uint64(n), 1500))
		}
		put(fmt.Sprintf("dir/sub/f%d", i), random(uint64(1000+i), 50_000))
		first.sync()
	}
	big := random(7, 3<<20)
	first.put("big", big)
	first.sync()
	first.close()

	d := recovered(t, swarm)
	d.counted()
	want["big"] = string(big)
	check(t, d.listTree(), want)
	groups := must(d.table.Groups())
	d.tree.Close()
	d.close() // what it has in memory is gone
	swarm.Lose(func(p group.PackRef) bool {
		at := slices.IndexFunc(groups, func(g group.Group) bool { return g.ID == p.Group })
		return groups[at].Kind == group.Metadata
	})
	d.open(nil)
	d.edit("big", []byte("edit"), 1<<20)
	copy(big[1<<20:], "edit")
	want["big"] = string(big)
	put := d.putting(want)
	put("dir/sub/new", []byte("new"))
	put("wide/0-0", []byte("changed"))
	dir, _ := d.parent("wide/x")
	if err := d.tree.Unlink(ctx, dir, "0-1"); err != nil {
		t.Fatal(err)
	}
	delete(want, "wide/0-1")
	d.sync()
	check(t, d.committed(), want)
	put("dir/sub/new", []byte("newer"))
	d.sync()
	check(t, d.committed(), want)
}

// A device that has not learned the index yet, as a piece of it cannot be read,
// reads what the others name, and commits all the same.
func TestCommitsBesideAnUnreadIndex(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	first := newDevice(t, swarm)
	want := map[string]string{"dir/": ""}
	put := first.putting(want)
	fill := func(n int) {
		for i := range n {
			put(fmt.Sprintf("dir/%d-%d", n, i), random(uint64(100*n+i), 1500))
		}
		first.sync()
	}
	fill(100)
	tail := swarm.Head().Commit // its pack has the larger segment
	fill(20)
	source := &partly{Swarm: swarm}
	refuse := func(p group.PackRef) bool { return p.Group == tail.Group && p.Number == tail.Number }
	source.refuse.Store(&refuse)
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, source: source, number: 1}
	d.recover()
	put = d.putting(want)
	for i := range 3 {
		put(fmt.Sprintf("new%d", i), random(uint64(2000+i), 3000))
		d.sync()
		check(t, d.committed(), want)
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(d.engine.Progress().IndexUnread, fmt.Sprintf("pack %d: unreachable", tail.Number)); d.sync() {
		if time.Now().After(end) {
			t.Fatalf("what cannot be read is called %q", d.engine.Progress().IndexUnread)
		}
	}
	if counted, err := d.table.Counted(); err != nil || counted {
		t.Fatalf("counted %v without having read the index: %v", counted, err)
	}
	d.close()
	source.refuse.Store(nil)
	d.open(nil)
	d.counted()
	put("last", []byte("last"))
	d.sync()
	check(t, d.committed(), want)
	d.audit()
}
