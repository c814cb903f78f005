package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"skep/fs/mount"
	"skep/test/harness"
)

// The home remembers its mount and who serves it, so that the next daemon can end what the
// kernel still has of one that was killed; that of one that lives nobody ends, and after
// kill -9 the next mount begins at once.
func TestHomeRemembersItsMount(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 1})
	d := swarm.NewDevice(t)
	for range 2 {
		d.MountAlone(t)
		b, err := os.ReadFile(filepath.Join(d.Home, "mount"))
		must(t, err)
		var m mount.Mark
		must(t, json.Unmarshal(b, &m))
		if m.Dir != d.Mnt || m.PID != d.Process().PID() || m.Dev == "" || m.Started == 0 || m.Boot == "" {
			t.Errorf("it remembers %+v of a mount at %s by process %d", m, d.Mnt, d.Process().PID())
		}
		if done, err := m.EndKilled(); done || err != nil {
			t.Errorf("the mount of a daemon that lives was ended: %v, %v", done, err)
		}
		if _, err := os.ReadDir(d.Mnt); err != nil {
			t.Error(err)
		}
		d.Process().Kill() // and its dead mount is left
	}
}
