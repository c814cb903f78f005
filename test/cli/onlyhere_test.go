package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"skep/cmd/skep/control"
	"skep/test/harness"
)

// So many holders are gone for good that the names of a drive are on its device alone.
// While nobody is there to take them, sync and status say so. When a few are, though
// repair is paused and has nobody to bring shards to, sync stores them again; and then the
// device may be lost.
func TestNamesThatAreOnlyHere(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 8, DeadAfter: 10 * time.Second})
	d := swarm.NewDevice(t)
	d.Mount(t)
	for i := range 100 { // files so small that they lie with their names
		must(t, os.MkdirAll(d.Path("names", fmt.Sprint(i%7)), 0o755))
		write(t, d.Path(nameOf(i)), nameOf(i))
	}
	d.Sync(t)
	d.WaitSafe(t, time.Minute)
	d.Skep(t, "repair", "pause").OK(t)
	swarm.Add(t, "--offer", "0") // by whose answers the silence of the others is noticed
	d.WaitStatus(t, time.Minute, "nine peers answer", func(s control.Status) bool { return harness.Alive(s) == 9 })
	for i, p := range swarm.Peers[:8] {
		if i < 5 {
			p.Destroy(t)
		} else {
			p.Kill()
		}
	}
	d.WaitStatus(t, 2*time.Minute, "packs are on this device only", func(s control.Status) bool { return s.PacksOnlyHere > 0 && s.PacksOnlyHere == s.PacksBelowTarget })
	if p := pathStatus(t, d, nameOf(5)); p.State != "local" || p.PacksOnlyHere == 0 {
		t.Errorf("a file: %+v", p)
	}
	if text := d.Skep(t, "status").OK(t); !strings.Contains(text, "on this device only: too few of") {
		t.Errorf("status does not say so:\n%s", text)
	}
	said := "on this device only, the words would not bring"
	if r := d.Skep(t, "sync"); r.Code != 1 || !strings.Contains(r.Stderr, said) && !strings.Contains(r.Stderr, "not everything is out") { // as nobody is there
		t.Errorf("sync: %d, %q", r.Code, r.Stderr)
	}

	for _, p := range swarm.Peers[5:8] {
		p.Start(t)
	}
	harness.Until(t, 2*time.Minute, "all is out", func() (bool, string) {
		synced := d.Skep(t, "sync", "--timeout", "30s")
		return synced.Code == 0, synced.Stderr
	})
	if s := d.Status(t); s.PacksOnlyHere != 0 || !s.RepairPaused {
		t.Errorf("after a sync: %+v", s)
	}
	d.Destroy(t)
	back := swarm.Recover(t, d.Words)
	back.Mount(t)
	for i := range 100 {
		if got, err := os.ReadFile(back.Path(nameOf(i))); err != nil || string(got) != nameOf(i) {
			t.Errorf("%s: %q, %v", nameOf(i), got, err)
		}
	}
}

func nameOf(i int) string { return fmt.Sprintf("names/%d/file%d", i%7, i) }
