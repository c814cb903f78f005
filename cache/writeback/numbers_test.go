package writeback_test

import (
	"os"
	"path/filepath"
	"testing"

	"skep/cache/blocks"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// More commits fail for want of room than a group has numbers: when there is room again,
// all goes out, nothing is left here of what did not, and of the numbers that were used up
// for it nothing is left in the account.
func TestMoreTriesThanNumbers(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	sink := &full{Swarm: swarm}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, publish: swarm.Publish}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	want := map[string]string{}
	put := d.putting(want)
	put("before", random(1, 3000))
	d.sync()
	put("meanwhile", random(2, 3000))
	sink.is.Store(true)
	for range group.MaxPacks + 50 {
		if err := d.engine.Sync(ctx); err == nil {
			t.Fatal("it went out")
		}
	}
	packs := func() int { return len(must(os.ReadDir(filepath.Join(d.dir, "packs")))) }
	if n := packs(); n > 8 {
		t.Errorf("%d packs are kept here of one commit", n)
	}
	sink.is.Store(false)
	for i := range 3 {
		put("tick", []byte{byte(i)})
		d.sync()
	}
	check(t, d.committed(), want)
	unknown := 0
	for _, w := range must(d.table.Watched()) {
		if w.Pack == nil && !w.Group.Dead.Has(w.Number) {
			unknown++
		}
	}
	accounted := 0
	if err := d.table.Packs(func(blocks.Pack) bool { accounted++; return true }); err != nil {
		t.Fatal(err)
	}
	if n := packs(); unknown > 0 || n > accounted {
		t.Errorf("%d numbers stand for nothing, %d packs are kept here of %d", unknown, n, accounted)
	}
	if n := len(must(d.table.Groups())); n > 12 {
		t.Errorf("%d groups are in the account", n)
	}
	d.audit()
}
