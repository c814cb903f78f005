package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skep/test/harness"
)

// The doctor looks at everything that a drive needs here, says what is wrong and
// what to do, as root and as an ordinary user.
func TestDoctor(t *testing.T) {
	asUser(t)
	swarm := harness.NewSwarm(t, harness.Options{Peers: 1})
	d := swarm.NewDevice(t)
	d.Mount(t)
	says(t, d.Skep(t, "doctor").OK(t), "can mount", d.Home, "runs", "free on the disk", "clock", "answers, in")
	d.Skep(t, "down").OK(t)
	says(t, d.Skep(t, "doctor").OK(t), "does not run; skep mount DIR starts it")

	must(t, os.Chmod(d.Home, 0o755))
	says(t, d.Skep(t, "doctor").OK(t), "open to other users", "chmod 700")
	must(t, os.Chmod(d.Home, 0o700))

	swarm.Peers[0].Kill()
	r := d.Skep(t, "doctor")
	r.Fails(t, 1, "one thing will not work")
	says(t, r.Stdout, "does not answer", "see that this computer is online")

	settings := filepath.Join(d.Home, "settings.json")
	must(t, os.WriteFile(settings, []byte("{"), 0o600))
	r = d.Skep(t, "doctor", "--json")
	r.Fails(t, 1)
	says(t, r.Stdout, settings, `"verdict": "broken"`)
}

func TestDoctorBeforeInit(t *testing.T) {
	dir := harness.Dir(t)
	out := harness.Skep(t, "--home", filepath.Join(dir, "none"), "doctor").OK(t)
	says(t, out, "no drive or peer", "skep init", "--bootstrap")
	absent(t, filepath.Join(dir, "none"))
	harness.Skep(t, "--home", dir, "doctor", "--bootstrap", "nonsense").Fails(t, 2, "nonsense")
	long := filepath.Join(dir, strings.Repeat("long", 30))
	harness.Skep(t, "--home", long, "doctor").Fails(t, 1, "will not work")
}

// A small disk is told of before it is full.
func TestDoctorOfASmallDisk(t *testing.T) {
	disk := smallDisk(t, "64m")
	home := filepath.Join(disk, "home")
	harness.Skep(t, "init", "--home", home, "--words-file", filepath.Join(disk, "words"), "--offer", "0").OK(t)
	r := harness.Skep(t, "--home", home, "doctor")
	r.Fails(t, 1)
	says(t, r.Stdout, "make room")
}

func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in:\n%s", p, text)
		}
	}
}
