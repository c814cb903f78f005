package e2e

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"skep/test/harness"
	"skep/test/model"
	"skep/test/seed"
)

// TestModel does random operations on the drive of a real daemon whose cache is
// smaller than what it holds, and on a model: what was let go of comes back from
// real peers in the middle. The daemon is ended, in order or not, and started
// again.
func TestModel(t *testing.T) {
	r := rand.New(rand.NewPCG(seed.For(t), 0))
	rounds, round := 2, 150
	if times, err := strconv.Atoi(os.Getenv("SKEP_SOAK")); err == nil {
		rounds, round = 20*times, 500
	}
	swarm := harness.NewSwarm(t, harness.Options{Peers: 5})
	d := swarm.NewDevice(t, "--cache", "64M")
	d.Mount(t)
	m := &model.Mount{Root: d.Path("model"), Maintain: func(op model.Op) error {
		if op.Kind == model.Commit {
			d.Sync(t)
		}
		return nil
	}}
	must(t, os.Mkdir(m.Root, 0o755))
	other := harness.Noise(r, 70<<20) // more than there is room for: all that is not used goes
	must(t, os.WriteFile(d.Path("other"), other, 0o644))
	b := &model.Beside{Target: m, Model: model.New(), Generator: &model.Generator{Rand: r,
		Dirs: []string{"", "a", "b", "a/c"}, Names: []string{"a", "b", "c", "d", "e", "f"},
		Sizes: []int64{16384, 70000, 1 << 20, 3 << 20, 8<<20 + 777}, Handles: 4,
		Maintenance: map[model.Kind]int{model.Commit: 50}}}
	for i := range rounds {
		must(t, b.Steps(round, 50))
		m.CloseAll()
		b.Model.CloseAll()
		if i%2 == 0 {
			d.Kill()
		} else {
			d.Stop(t)
		}
		d.MountAlone(t)
		must(t, b.Compare())
		got, err := os.ReadFile(d.Path("other"))
		must(t, err)
		if !bytes.Equal(got, other) {
			t.Fatalf("%d bytes of %d are not what was written", len(got), len(other))
		}
		s := d.Status(t)
		t.Logf("%d bytes in the drive, %d of them not here", s.Bytes, s.Cache.Evicted)
	}
}
