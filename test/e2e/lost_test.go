package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skep/cmd/skep/control"
	"skep/test/harness"
)

// TestLostPacks takes so many holders away at once that packs are lost, from a device
// that was recovered and has read one of two folders: that one goes out again by
// itself, and sync names the files of the other.
func TestLostPacks(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 8, DeadAfter: 10 * time.Second})
	source := filepath.Join(swarm.Dir, "source")
	for _, dir := range []string{"here", "away"} {
		must(t, os.MkdirAll(filepath.Join(source, dir), 0o755))
		harness.Files(t, filepath.Join(source, dir), 24, 300_000, uint64(len(dir)+int(dir[0])))
	}
	must(t, os.WriteFile(filepath.Join(source, "here", "large"), harness.Noise(rand.New(rand.NewPCG(3, 3)), 5<<20), 0o644))
	first := swarm.NewDevice(t)
	first.Mount(t)
	harness.Rsync(t, "-a", source+"/", first.Path("tree")+"/")
	first.Sync(t)
	first.Destroy(t)

	d := swarm.Recover(t, first.Words)
	d.Mount(t)
	harness.Same(t, filepath.Join(source, "here"), d.Path("tree", "here"))
	must(t, filepath.WalkDir(d.Path("tree", "away"), func(string, os.DirEntry, error) error { return nil }))
	d.WaitStatus(t, time.Minute, "the index is on this device", func(s control.Status) bool { return s.Read && s.PacksUnasked == 0 })
	d.Sync(t)

	for _, p := range swarm.Peers[2:] {
		p.Destroy(t)
	}
	for range 6 {
		swarm.Add(t)
	}
	d.WaitStatus(t, 2*time.Minute, "files of lost packs are named", func(s control.Status) bool { return len(s.Lost) > 0 })
	harness.Until(t, 2*time.Minute, "what is here is safe again, and nobody asked for it", func() (bool, string) {
		s, err := d.TryStatus(t, d.Path("tree", "here", "large"))
		return err == nil && len(s.Paths) == 1 && s.Paths[0].State == "safe", fmt.Sprintf("%+v, %v", s.Paths, err)
	})
	harness.Until(t, 2*time.Minute, "sync names the files that are not here, and no other", func() (bool, string) {
		r := d.Skep(t, "sync")
		return r.Code == 1 && strings.Contains(r.Stderr, `"/tree/away/`) && !strings.Contains(r.Stderr, "/here/"), r.Stderr
	})

	must(t, os.RemoveAll(d.Path("tree", "away")))
	harness.Until(t, 2*time.Minute, "sync has nothing left to name", func() (bool, string) {
		r := d.Skep(t, "sync")
		return r.Code == 0, r.Stderr
	})
	d.WaitStatus(t, 2*time.Minute, "all shards are there", func(s control.Status) bool { return harness.Safe(s) && s.PacksLost == 0 })
	d.Destroy(t)
	must(t, os.Remove(d.Mnt))
	again := swarm.Recover(t, first.Words)
	again.Mount(t)
	harness.Same(t, filepath.Join(source, "here"), again.Path("tree", "here"))
}
