package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skep/cmd/skep/control"
	"skep/test/harness"
)

// A home that comes from a backup, and lacks what was synced after that, is told: what
// is written into it does not go out, nor does it take the place of what is. The words
// bring that, and each of the two devices is then told of the other one: that which was
// set back is there, too, and reads what it has.
func TestHomeFromABackup(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 5})
	d := swarm.NewDevice(t)
	saved := func(name string) {
		write(t, d.Path(name), "content of "+name)
		d.Sync(t)
	}
	d.Mount(t)
	saved("before")
	d.Stop(t)
	backup := filepath.Join(swarm.Dir, "backup")
	copyHome := func(from, to string) {
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	copyHome(d.Home, backup)
	d.Mount(t)
	saved("after")
	d.Stop(t)
	must(t, os.RemoveAll(d.Home))
	copyHome(backup, d.Home)

	d.Mount(t)
	write(t, d.Path("here"), "x")
	d.Skep(t, "sync").Fails(t, 1, "set back to an earlier state", "skep recover")
	if out := d.Skep(t, "status").OK(t); !strings.Contains(out, "Set back") {
		t.Errorf("status does not tell:\n%s", out)
	}
	if p := d.Status(t, d.Path("before")).Paths[0]; p.State != "out" {
		t.Errorf("status calls %q what the words may not bring back as it is here", p.State)
	}
	r := swarm.Recover(t, d.Words)
	r.Mount(t)
	has(t, r.Path("after"), "content of after")
	absent(t, r.Path("here"))
	write(t, r.Path("on"), "and on")
	r.Sync(t)
	d.WaitStatus(t, 60*time.Second, "the device that was recovered is known", func(s control.Status) bool { return s.Others != "" && s.SetBack != "" })
	s := r.WaitStatus(t, 60*time.Second, "the device that was set back is known", func(s control.Status) bool { return s.Others != "" })
	if s.SetBack != "" || s.Overtaken != "" {
		t.Errorf("a device that took another one's place is told of %q, %q", s.SetBack, s.Overtaken)
	}
}
