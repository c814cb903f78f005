package writeback_test

import (
	"fmt"
	"testing"

	"skep/chunker/link"
	"skep/test/memswarm"
)

// While nobody can be reached the journal does not grow without end, and should
// the index be lost, all is still there: on a drive that has made a commit, on one
// that never has, and on a device whose references are not counted yet.
func TestJournalIsBoundedOffline(t *testing.T) {
	before := map[string]func(d *device){
		"committed": func(d *device) {
			d.put("old", []byte("old"))
			d.sync()
		},
		"never committed": func(*device) {},
		"not counted": func(d *device) {
			d.put("old", []byte("old"))
			d.sync()
			if err := d.table.Hold([]link.Link{{Codec: link.DagPB, Hash: link.Hash{1}}}); err != nil { // nobody can read it
				t.Fatal(err)
			}
		},
	}
	for name, begin := range before {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "committed" {
				t.Skip("writes as much again")
			}
			swarm := memswarm.New(9, 4, 7)
			d := newDevice(t, swarm)
			begin(d)
			want := d.listTree()
			want["dir/"] = ""
			for i := range 9 {
				swarm.Set(i, func(h *memswarm.Holder) { h.Down = true })
			}
			d.writeOffline(want)
			if counted, err := d.table.Counted(); err != nil || counted != (name != "not counted") {
				t.Fatalf("counted: %v, %v", counted, err)
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
			for i := range 9 {
				swarm.Set(i, func(h *memswarm.Holder) { h.Down = false })
			}
			d.sync()
			check(t, d.committed(), want)
		})
	}
}

// writeOffline writes more than the journal may take, and syncs in vain.
func (d *device) writeOffline(want map[string]string) {
	d.t.Helper()
	for round := range uint64(6) {
		for i := range uint64(1000) {
			name, content := fmt.Sprint("dir/f", i%50), random(round*1000+i, 16<<10)
			d.put(name, content)
			want[name] = string(content)
		}
		if err := d.engine.Sync(ctx); err == nil {
			d.t.Fatal("synced with nobody")
		}
	}
}
