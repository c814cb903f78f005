package cli

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"skep/test/harness"
)

// Commands do not wait for ever for a daemon that is stopped: they name its process, and
// fail. When it goes on, all is as it was. By force, its mount is taken away all the same.
func TestStoppedDaemon(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 1})
	d := swarm.NewDevice(t)
	d.MountAlone(t)
	d.Process().Signal(syscall.SIGSTOP)
	var all []*running
	for _, args := range [][]string{{"status"}, {"sync"}, {"pin", "--list"}, {"repair", "pause"}, {"mount", d.Mnt}, {"umount", d.Mnt}, {"down"}} {
		all = append(all, begin(t, d.Home, args...))
	}
	named := fmt.Sprintf("does not answer: process %d is stopped", d.Process().PID())
	for _, r := range all {
		if code, said := r.end(t); code != 1 || !strings.Contains(said, named) {
			t.Errorf("%s: exit %d, %q", r, code, said)
		}
	}
	d.Process().Signal(syscall.SIGCONT)
	if code, said := begin(t, d.Home, "sync").end(t); code != 0 {
		t.Errorf("sync: exit %d, %q", code, said)
	}
	d.Process().Signal(syscall.SIGSTOP)
	if code, said := begin(t, d.Home, "umount", "--force", d.Mnt).end(t); code != 0 {
		t.Errorf("umount by force: exit %d, %q", code, said)
	}
	if _, err := os.ReadDir(d.Mnt); err != nil {
		t.Error(err)
	}
	d.Process().Signal(syscall.SIGCONT)
	if code, said := begin(t, d.Home, "mount", d.Mnt).end(t); code != 0 {
		t.Errorf("mounted again: exit %d, %q", code, said)
	}
}
