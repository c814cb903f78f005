package cli

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"skep/test/harness"
)

// What is wrong with words is said of them: how many, which one, or that they
// are not those of this swarm.
func TestRecoverFromBadWords(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 2})
	good := strings.Fields(string(harness.NewWords()))
	but := func(i int, word string) string {
		w := append([]string(nil), good...)
		w[i] = word
		return strings.Join(w, " ")
	}
	other := "zoo" // with the wrong checksum most of the time, else of no drive
	if good[4] == other {
		other = "abandon"
	}
	for name, tt := range map[string]struct {
		words string
		says  []string
	}{
		"none":           {"", []string{"words"}},
		"one too few":    {strings.Join(good[1:], " "), []string{"11 recovery words"}},
		"one too many":   {strings.Join(append(good, "zoo"), " "), []string{"13 recovery words"}},
		"misspelt":       {but(2, "abandom"), []string{"abandom", "abandon", "3"}},
		"swapped":        {but(4, other), []string{"words"}},
		"of other swarm": {strings.Join(good, " "), []string{"no drive was found for these words"}},
		"binary":         {string([]byte{0, 1, 2, 0xff, 0xfe}), []string{"word"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := harness.Dir(t)
			file, home := filepath.Join(dir, "words"), filepath.Join(dir, "home")
			write(t, file, tt.words+"\n")
			r := harness.Skep(t, "recover", "--home", home, "--words-file", file, "--bootstrap", swarm.Bootstrap(),
				"--listen", "/ip4/127.0.0.1/tcp/0")
			r.Fails(t, 1, tt.says...)
			absent(t, filepath.Join(home, "settings.json"))
			absent(t, filepath.Join(home, "keys"))
		})
	}
	harness.Skep(t, "recover", "--home", swarm.Dir+"/x", "--words-file", swarm.Dir+"/missing",
		"--bootstrap", swarm.Bootstrap()).Fails(t, 1, "missing")
}

// A recovery that failed can be tried again in the same home, also from
// standard input.
func TestRecoverAgain(t *testing.T) {
	asUser(t)
	swarm := harness.NewSwarm(t, harness.Options{Peers: 6})
	d := swarm.NewDevice(t)
	d.Mount(t)
	write(t, d.Path("file"), "content")
	d.Sync(t)
	d.Destroy(t)
	home := filepath.Join(swarm.Dir, "again")
	bad := filepath.Join(swarm.Dir, "bad")
	write(t, bad, string(harness.NewWords()))
	args := []string{"recover", "--home", home, "--offer", "0", "--listen", "/ip4/127.0.0.1/tcp/0", "--bootstrap", swarm.Bootstrap()}
	harness.Skep(t, append(args, "--words-file", bad)...).Fails(t, 1, "no drive was found")
	has(t, filepath.Join(home, "begun"), "") // the next one begins anew
	words, err := os.Open(d.Words)
	must(t, err)
	defer words.Close()
	cmd := skep(append(args, "--words-file", "-")...)
	cmd.Stdin = words
	harness.Run(t, cmd).OK(t)
	absent(t, filepath.Join(home, "begun"))
	harness.Skep(t, "mount", "--home", home, d.Mnt).OK(t)
	has(t, d.Path("file"), "content")
}

// An address where nobody answers is named.
func TestRecoverFromNobody(t *testing.T) {
	dir := harness.Dir(t)
	write(t, filepath.Join(dir, "words"), string(harness.NewWords()))
	nobody := strings.Replace(goodAddr, "4001", "9", 1)
	r := harness.Skep(t, "recover", "--home", filepath.Join(dir, "home"), "--words-file", filepath.Join(dir, "words"),
		"--bootstrap", nobody, "--listen", "/ip4/127.0.0.1/tcp/0")
	r.Fails(t, 1, "/ip4/127.0.0.1/tcp/9")
	absent(t, filepath.Join(dir, "home", "settings.json"))
}

// Holders that are there and say nothing, as when their computers hang, keep nobody
// waiting for a drive: the others bring it back.
func TestRecoverBesideSilentHolders(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 8, DeadAfter: 72 * time.Hour})
	d := swarm.NewDevice(t)
	d.Mount(t)
	write(t, d.Path("dir", "file"), strings.Repeat("content", 20_000))
	d.Sync(t)
	d.WaitSafe(t, time.Minute)
	d.Kill()
	recovering := func() {
		r := swarm.Recover(t, d.Words)
		r.MountAlone(t)
		has(t, r.Path("dir", "file"), strings.Repeat("content", 20_000))
		r.Kill()
	}
	begin := time.Now()
	recovering()
	usual := time.Since(begin)
	for _, p := range swarm.Peers[3:5] {
		p.Process().Signal(syscall.SIGSTOP)
		defer p.Process().Signal(syscall.SIGCONT)
	}
	// A dial that is not answered takes five seconds.
	harness.Quick(t, usual+4*time.Second, "recovering and reading", recovering)
}
