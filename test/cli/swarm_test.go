package cli

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"skep/cmd/skep/control"
	"skep/test/harness"
)

// Without any peer, everything works on this device, sync says what is missing,
// and nothing is lost.
func TestNoPeers(t *testing.T) {
	d := alone(t)
	d.MountAlone(t)
	write(t, d.Path("file"), "content")
	d.Skep(t, "sync", "--timeout", "1s").Fails(t, 1, "not everything is out", "no peer")
	s := d.Status(t)
	if s.PendingFiles == 0 || s.RecoveryOut || len(s.Peers) > 0 {
		t.Errorf("status: %s, recovery record out %v", harness.Brief(s), s.RecoveryOut)
	}
	text := d.Skep(t, "status").OK(t)
	for _, part := range []string{"on this device only", "the words may not bring this drive back"} {
		if !strings.Contains(text, part) {
			t.Errorf("status lacks %q:\n%s", part, text)
		}
	}
	d.Kill()
	d.MountAlone(t)
	has(t, d.Path("file"), "content")
}

// With fewer peers than it takes, sync says so; when more come, all goes out
// by itself.
func TestTooFewPeers(t *testing.T) {
	asUser(t)
	swarm := harness.NewSwarm(t, harness.Options{Peers: 4, DeadAfter: 5 * time.Second})
	d := swarm.NewDevice(t)
	d.Mount(t)
	write(t, d.Path("before"), "content")
	d.Sync(t)
	for _, p := range swarm.Peers[1:] {
		p.Process().Signal(syscall.SIGSTOP)
	}
	write(t, d.Path("after"), strings.Repeat("content", 100_000))
	r := d.Skep(t, "sync", "--timeout", "3s")
	r.Fails(t, 1, "out")
	if r.Took > 30*time.Second {
		t.Errorf("sync with a timeout of 3s took %v", r.Took)
	}
	has(t, d.Path("after"), strings.Repeat("content", 100_000))
	for _, p := range swarm.Peers[1:] {
		p.Process().Signal(syscall.SIGCONT)
	}
	d.WaitStatus(t, 60*time.Second, "what was pending is out", func(s control.Status) bool { return s.PendingFiles == 0 })
	d.Sync(t)
}

// A bootstrap address where nobody answers is named, in the log of the daemon
// too; and it is tried on until somebody does.
func TestBootstrapPeerIsAway(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 5})
	first := swarm.Peers[0]
	d := swarm.NewDevice(t)
	at := address(first.Addr)
	if r := d.Skep(t, "mount", d.Mnt); r.Code != 0 || r.Stderr != "" {
		t.Errorf("while it is there: %+v", r)
	}
	d.Skep(t, "down").OK(t)
	must(t, os.Remove(filepath.Join(d.Home, "peers"))) // so that it is the only one that is known
	first.Kill()
	r := harness.Skep(t, "init", "--home", d.Home+"2", "--words-file", d.Home+"2.words", "--bootstrap", first.Addr)
	r.OK(t)
	says(t, r.Stderr, "no peer answers yet", at)
	r = d.Skep(t, "mount", d.Mnt)
	r.OK(t)
	says(t, r.Stderr, "no peer answers yet", at)
	d.Skep(t, "umount", d.Mnt).OK(t)
	d.Skep(t, "mount", "--bootstrap", swarm.Peers[1].Addr, d.Mnt).OK(t) // the daemon is there already
	d.WaitStatus(t, 60*time.Second, "the swarm is joined by another one", func(s control.Status) bool { return harness.Alive(s) == 4 })
	d.Skep(t, "down").OK(t)
	must(t, os.Remove(filepath.Join(d.Home, "peers")))
	d.MountAlone(t)
	harness.Until(t, 60*time.Second, "the log names the address", func() (bool, string) {
		log, err := os.ReadFile(d.Log())
		must(t, err)
		return strings.Contains(string(log), at), string(log)
	})
	first.Start(t)
	d.WaitStatus(t, 60*time.Second, "the swarm is joined", func(s control.Status) bool { return harness.Alive(s) == 5 })
	write(t, d.Path("file"), "content")
	d.Sync(t)
}

// address is a peer's full address without its id.
func address(full string) string {
	at, _, _ := strings.Cut(full, "/p2p/")
	return at
}

// A holder whose shard files were cut short, altered, or emptied costs nothing
// that can be seen.
func TestDamagedShards(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 8})
	d := swarm.NewDevice(t)
	source := filled(t, d, 16, 700_000, 3)
	d.WaitSafe(t, 60*time.Second)
	spare := harness.Spare(t, d.Status(t))
	d.Destroy(t)
	for i, p := range swarm.Peers[:spare] {
		for _, f := range p.Shards(t) {
			damage(t, f, i%3)
		}
	}
	again := swarm.Recover(t, d.Words)
	again.Mount(t)
	harness.Same(t, source, again.Path("tree"))
}

// damage harms a file in one of three ways.
func damage(t *testing.T, path string, how int) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	switch how {
	case 0:
		b = b[:len(b)/2]
	case 1:
		for i := len(b) / 3; i < len(b); i += 1000 {
			b[i] ^= 0xff
		}
	default:
		b = nil
	}
	must(t, os.WriteFile(path, b, 0o600))
}
