package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/cmd/skep/control"
	"skep/test/harness"
)

// What is pinned comes to a device that has nothing yet, and stays there.
func TestPin(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 5})
	d := swarm.NewDevice(t)
	d.Mount(t)
	must(t, os.Mkdir(d.Path("music"), 0o755))
	for i := range 3 {
		write(t, d.Path("music", fmt.Sprint("song", i)), strings.Repeat("la", 200_000+i))
	}
	write(t, d.Path("other"), strings.Repeat("other", 100_000))
	d.Sync(t)
	d.Destroy(t)

	again := swarm.Recover(t, d.Words)
	again.Mount(t)
	again.Skep(t, "pin", again.Path("music")).OK(t)
	again.WaitStatus(t, 60*time.Second, "what is pinned is here", func(s control.Status) bool {
		return s.Cache.Pinned > 1_200_000 && s.Cache.PinnedHere == s.Cache.Pinned
	})
	for _, p := range again.Status(t, again.Path("music", "song1"), again.Path("other")).Paths {
		if here := p.Resident == p.Size; here != strings.Contains(p.Path, "song") {
			t.Errorf("%s: %d of %d bytes are here", p.Path, p.Resident, p.Size)
		}
	}
	v := make([]byte, 20)
	if n, err := unix.Getxattr(again.Path("music", "song1"), "user.skep.pin", v); err != nil || string(v[:n]) != "inherited" {
		t.Errorf("the attribute is %q, %v", v[:max(0, n)], err)
	}
	if p := listPins(t, again); len(p) != 1 || p[0].Path != again.Path("music") || p[0].Files != 3 || p[0].Here != p[0].Bytes {
		t.Errorf("pinned: %+v", p)
	}
	again.Skep(t, "pin", "--remove", listPins(t, again)[0].Path).OK(t)
	if p := listPins(t, again); len(p) != 0 {
		t.Errorf("pinned: %+v", p)
	}
	must(t, unix.Setxattr(again.Path("other"), "user.skep.pin", []byte("1"), 0))
	if p := listPins(t, again); len(p) != 1 || p[0].Path != again.Path("other") {
		t.Errorf("pinned: %+v", p)
	}
	again.Skep(t, "pin").Fails(t, 2, "say what")
	again.Skep(t, "pin", again.Path("nothing")).Fails(t, 1, "no such file")
}

func listPins(t *testing.T, d *harness.Device) []control.Pinned {
	t.Helper()
	var out control.Pins
	must(t, json.Unmarshal([]byte(d.Skep(t, "pin", "--list", "--json").OK(t)), &out))
	return out.Pins
}
