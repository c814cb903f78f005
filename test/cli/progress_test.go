package cli

import (
	"math/rand/v2"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"skep/test/harness"
)

// On a terminal, what takes long shows how far it is; elsewhere it is silent.
func TestProgress(t *testing.T) {
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip("needs script (bsdutils), for a terminal")
	}
	swarm := harness.NewSwarm(t, harness.Options{Peers: 5})
	d := swarm.NewDevice(t)
	d.Mount(t)
	content := make([]byte, 160<<20) // which takes longer than a look at how far it is
	_, _ = rand.NewChaCha8([32]byte{2}).Read(content)
	write(t, d.Path("file"), string(content))
	onTerminal := func(args ...string) string {
		line := strings.Join(append([]string{harness.Binary(), "--home", d.Home}, args...), " ")
		return harness.Run(t, exec.Command("script", "-qec", line, "/dev/null")).OK(t)
	}
	shown := onTerminal("sync")
	for what, form := range map[string]string{"for how long still": `uploading +\d+% .*/160 MiB.*\) \[[\dms]+:[\dms]+\]`,
		"at which rate": `uploading +100% .*160/160 MiB, [\d.]+ ([KMG]i)?B/s\)`} {
		if !regexp.MustCompile(form).MatchString(shown) {
			t.Errorf("%s is not shown:\n%q", what, shown)
		}
	}
	write(t, d.Path("other"), string(content[1:1<<20]))
	r := d.Skep(t, "sync")
	r.OK(t)
	if r.Stdout != "" || r.Stderr != "" {
		t.Errorf("without a terminal, sync says %q and %q", r.Stdout, r.Stderr)
	}
	write(t, d.Path("third"), string(content[2:1<<20]))
	onTerminal("umount", "--wait", d.Mnt)
	d.Mount(t)
	if s := d.Status(t); s.PendingFiles > 0 {
		t.Errorf("%d changes are pending after umount --wait", s.PendingFiles)
	}
	d.Stop(t)
	shown = onTerminal("fsck")
	for _, step := range []string{"checking names", "counting references", "checking files", "checking packs of metadata"} {
		says(t, shown, step+" 100%")
	}
}
