package cli

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"skep/cmd/skep/control"
	"skep/test/harness"
)

// In a swarm that is full to the brim, what is deleted makes room for what waits: nobody
// has to delete what is not out yet.
func TestDeletingInAFullSwarm(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 4, Offer: "6M"})
	d := swarm.NewDevice(t)
	d.Mount(t)
	r := rand.New(rand.NewPCG(7, 7))
	sync := func() harness.Result { return d.Skep(t, "sync", "--timeout", "15s") }
	var dirs []string
	for full := false; !full; full = sync().Code != 0 {
		if len(dirs) == 100 {
			t.Fatal("the swarm is never full")
		}
		dir := d.Path(fmt.Sprint("dir", len(dirs)))
		dirs = append(dirs, dir)
		must(t, os.Mkdir(dir, 0o755))
		for n := range 8 {
			must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), harness.Noise(r, 60_000), 0o644))
		}
	}
	for _, dir := range dirs[:len(dirs)-1] {
		must(t, os.RemoveAll(dir))
	}
	harness.Until(t, 120*time.Second, "what waited goes where the deleted was", func() (bool, string) {
		r := sync()
		return r.Code == 0, r.Stderr
	})
}

// That the swarm is full is told in plain words, with what makes room.
func TestFullSwarmIsTold(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 4, Offer: "6M"})
	d := swarm.NewDevice(t)
	d.Mount(t)
	r := rand.New(rand.NewPCG(8, 8))
	for n := range 40 {
		must(t, os.WriteFile(d.Path(fmt.Sprint(n)), harness.Noise(r, 1_000_000), 0o644))
	}
	full := d.WaitStatus(t, 60*time.Second, "the swarm is full", func(s control.Status) bool { return s.SwarmFull != "" })
	if full.LastError == "" {
		t.Errorf("status does not say why: %+v", full)
	}
	d.Skep(t, "sync", "--timeout", "5s").Fails(t, 1, "not everything is out: the swarm is full: ", "wait on this device", "delete something")
	text := d.Skep(t, "status").OK(t)
	says(t, text, "the swarm is full: ")
	for _, row := range strings.Split(text, "\n") {
		if utf8.RuneCountInString(row) > 80 && !strings.Contains(row, "12D3KooW") { // a peer's name takes most of it
			t.Errorf("status has a line of %d columns: %s", utf8.RuneCountInString(row), row)
		}
	}
}
