package cli

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"skep/test/harness"
)

// copyHome copies a home that no daemon serves.
func copyHome(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(harness.Dir(t), "home")
	harness.Run(t, exec.Command("cp", "-a", from, to)).OK(t)
	return to
}

// What a home is nothing without may be gone or damaged: nothing is served from it
// then, nothing in it is changed, and whoever asks is told what brings the drive back.
func TestHomeBeyondUse(t *testing.T) {
	asUser(t)
	d := alone(t)
	d.Skep(t, "mount", d.Mnt).OK(t)
	for i := range 20 {
		write(t, d.Path("dir", string(rune('a'+i))), "content")
	}
	flush(t, d.Path("dir", "a"))
	write(t, d.Path("last"), "its record tells what was flushed")
	d.Skep(t, "down").OK(t)
	for name, tt := range map[string]struct {
		harm   func(home string) error
		says   string
		unseen bool // until it is opened
	}{
		"state gone":   {func(h string) error { return os.RemoveAll(h + "/state") }, "local state of the drive is gone", false},
		"journal gone": {func(h string) error { return os.RemoveAll(h + "/state/journal") }, "no journal", false},
		"journal damaged": {func(h string) error {
			flip(t, matching(t, h, "state/journal/*"), "content")
			return nil
		}, "journal is damaged", true},
		"journal cut": {func(h string) error {
			for _, name := range matching(t, h, "state/journal/*") {
				b, err := os.ReadFile(name)
				must(t, err)
				if at := bytes.Index(b, []byte("its record tells")); at > 0 {
					clear(b[at:])
					return os.WriteFile(name, b, 0o600)
				}
			}
			return errors.New("the journal does not have it")
		}, "journal is damaged", true},
		"keys gone":    {func(h string) error { return os.Remove(h + "/keys") }, "keys is gone", false},
		"keys damaged": {func(h string) error { return os.WriteFile(h+"/keys", []byte("x"), 0o600) }, "/keys: key file", true},
		"keyring gone": {func(h string) error { return os.Remove(h + "/keyring") }, "keyring is gone", false},
	} {
		t.Run(name, func(t *testing.T) {
			home, words := copyHome(t, d.Home), filepath.Join(harness.Dir(t), "words")
			write(t, words, string(harness.NewWords()))
			must(t, tt.harm(home))
			before := listing(t, home)
			told := []string{tt.says, "cannot be used any more", "skep recover --home OTHER"}
			for range 2 { // the first try leaves nothing that lets the second succeed
				harness.Skep(t, "--home", home, "mount", d.Mnt).Fails(t, 1, told...)
				harness.Skep(t, "--home", home, "mount", "--foreground", d.Mnt).Fails(t, 1, told...)
				harness.Skep(t, "--home", home, "fsck").Fails(t, 1, told...)
			}
			absent(t, d.Path("dir"))
			if !tt.unseen {
				harness.Skep(t, "--home", home, "status").Fails(t, 1, told...)
			}
			if name != "keys damaged" { // that needs the passphrase to be told
				r := harness.Skep(t, "--home", home, "doctor")
				r.Fails(t, 1, "one thing will not work")
				says(t, r.Stdout, append(told, "broken")...)
			}
			harness.Skep(t, "--home", home, "recover", "--words-file", words, "--bootstrap", goodAddr).Fails(t, 1, "--home")
			harness.Skep(t, "--home", home, "init", "--words-file", words+"2").Fails(t, 1, "--home")
			if after := listing(t, home); after != before {
				t.Errorf("there was\n%sand is\n%s", before, after)
			}
		})
	}
}

// listing names all in a home but what a daemon that tries to start leaves.
func listing(t *testing.T, home string) string {
	t.Helper()
	return harness.Run(t, exec.Command("sh", "-c", `cd "$1" && find . ! -name daemon.log ! -name lock ! -path './hosted*' ! -path './state/index*' ! -path '.' | sort`, "sh", home)).OK(t)
}

// A home that lost its settings is not taken for an empty directory; what a recovery
// left that did not come to its end is.
func TestRecoverBeginsAnew(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 6})
	other := alone(t)
	other.Skep(t, "mount", other.Mnt).OK(t)
	write(t, other.Path("other"), "of another drive")
	other.Skep(t, "down").OK(t)
	d := swarm.NewDevice(t)
	d.Mount(t)
	write(t, d.Path("file"), "content")
	d.Sync(t)
	d.Destroy(t)

	home := copyHome(t, other.Home)
	must(t, os.Remove(filepath.Join(home, "settings.json")))
	args := []string{"recover", "--home", home, "--offer", "0", "--listen", "/ip4/127.0.0.1/tcp/0", "--bootstrap", swarm.Bootstrap()}
	before := listing(t, home)
	harness.Skep(t, append(args, "--words-file", d.Words)...).Fails(t, 1, "left of another home", "--home")
	if after := listing(t, home); after != before {
		t.Errorf("there was\n%sand is\n%s", before, after)
	}

	write(t, filepath.Join(home, "begun"), "") // as if a recovery had left it
	harness.Skep(t, append(args, "--words-file", d.Words)...).OK(t)
	absent(t, filepath.Join(home, "begun"))
	harness.Skep(t, "mount", "--home", home, d.Mnt).OK(t)
	has(t, d.Path("file"), "content")
	absent(t, d.Path("other"))
	harness.Skep(t, "down", "--home", home).OK(t)
}

// A peer that lost its keys is nobody any more, and says so.
func TestPeerWithoutKeys(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 1})
	swarm.Peers[0].Kill()
	home := swarm.Peers[0].Home
	must(t, os.Remove(filepath.Join(home, "keys")))
	harness.Skep(t, "peer", "--home", home).Fails(t, 1, "keys are gone", "new peer", "another home")
	absent(t, filepath.Join(home, "keys"))
}
