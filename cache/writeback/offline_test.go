package writeback_test

import (
	"fmt"
	"testing"

	"skep/test/memswarm"
)

// While nobody can be reached the journal does not grow without end, and should
// the index be lost, all is still there.
func TestJournalIsBoundedOffline(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	want := map[string]string{"old": "old", "dir/": ""}
	d.put("old", []byte("old"))
	d.sync()
	for i := range 9 {
		swarm.Set(i, func(h *memswarm.Holder) { h.Down = true })
	}
	for round := range uint64(6) {
		for i := range uint64(1000) {
			name, content := fmt.Sprint("dir/f", i%50), random(round*1000+i, 16<<10)
			d.put(name, content)
			want[name] = string(content)
		}
		if err := d.engine.Sync(ctx); err == nil {
			t.Fatal("synced with nobody")
		}
	}
	if n := d.st.JournalSize(); n > 64<<20 {
		t.Errorf("the journal takes %d MiB", n>>20)
	}
	d.loseIndex()
	d.open(nil)
	if !d.lost {
		t.Fatal("the test did not lose anything")
	}
	check(t, d.listTree(), want)
}
