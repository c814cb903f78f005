package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"skep/test/harness"
)

// Environment of TestSoak: how many rounds, and the seed of a run that is to be
// repeated.
const (
	soakRounds = "SKEP_SOAK"
	soakSeed   = "SKEP_SOAK_SEED"
)

// TestSoak lives with a drive for many rounds: files change while something
// bad happens, and after each round the drive is what it should be.
func TestSoak(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv(soakRounds))
	if rounds <= 0 {
		t.Skipf("set %s to a number of rounds", soakRounds)
	}
	seed, err := strconv.ParseUint(os.Getenv(soakSeed), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("%s=%d", soakSeed, seed)
	s := &soak{random: rand.New(rand.NewPCG(seed, 0)), mirror: filepath.Join(harness.Dir(t), "mirror")}
	must(t, os.Mkdir(s.mirror, 0o755))
	s.swarm = harness.NewSwarm(t, harness.Options{Peers: 13, DeadAfter: 8 * time.Second})
	s.device = s.swarm.NewDevice(t)
	s.device.Mount(t)
	harness.Rsync(t, "-aHAX", source(t)+"/", s.mirror+"/source/")
	for i := range rounds {
		steps{t}.step(fmt.Sprint("round ", i), s.round)
	}
}

type soak struct {
	random *rand.Rand
	swarm  *harness.Swarm
	device *harness.Device
	mirror string
}

// round changes files, has something bad happen, and looks at what is left.
func (s *soak) round(t *testing.T) {
	s.change(t)
	bad := []struct {
		name string
		fn   func(*testing.T)
	}{
		{"nothing", func(t *testing.T) { s.copy(t) }},
		{"the daemon is killed while it uploads", s.killDaemon},
		{"a holder is lost", s.losePeer},
		{"a holder is silent for some time", s.silence},
		{"a holder's shards are altered", s.alter},
		{"the device is lost", s.loseDevice},
	}[s.random.IntN(6)]
	t.Log(bad.name)
	bad.fn(t)
	s.device.Sync(t)
	s.device.WaitSafe(t, 2*time.Minute)
	harness.Same(t, s.mirror, s.device.Path("data"))
}

// change edits, adds, moves and removes files of the mirror.
func (s *soak) change(t *testing.T) {
	t.Helper()
	dir := filepath.Join(s.mirror, fmt.Sprint("round", s.random.IntN(6)))
	must(t, os.RemoveAll(dir))
	must(t, os.Mkdir(dir, 0o755))
	harness.Files(t, dir, 50+s.random.IntN(400), 1+s.random.IntN(40_000), s.random.Uint64())
	harness.Files(t, filepath.Join(dir, "large"), 2, 1+s.random.IntN(20<<20), s.random.Uint64())
	special := filepath.Join(dir, "special")
	must(t, os.Mkdir(special, 0o755))
	harness.Special(t, special, s.random.Uint64())
	must(t, os.Rename(filepath.Join(dir, "large"), filepath.Join(dir, "renamed")))
}

// copy brings the drive to where the mirror is.
func (s *soak) copy(t *testing.T) {
	t.Helper()
	harness.Rsync(t, "-aHAX", "--delete", s.mirror+"/", s.device.Path("data")+"/")
}

func (s *soak) killDaemon(t *testing.T) {
	s.copy(t)
	before := s.swarm.Hosted(t)
	more := int64(s.random.IntN(20 << 20))
	harness.Until(t, time.Minute, "an upload is under way or done", func() (bool, string) {
		st, err := s.device.TryStatus(t)
		now := s.swarm.Hosted(t)
		return now > before+more || err == nil && st.PendingFiles == 0, fmt.Sprint(now - before)
	})
	s.device.Process().Kill()
	s.device.Mount(t)
	s.copy(t)
}

// running picks a peer that runs.
func (s *soak) running() *harness.Peer {
	for {
		if p := s.swarm.Peers[s.random.IntN(len(s.swarm.Peers))]; p.Running() {
			return p
		}
	}
}

func (s *soak) losePeer(t *testing.T) {
	s.running().Destroy(t)
	s.copy(t)
	s.swarm.Add(t)
}

func (s *soak) silence(t *testing.T) {
	p := s.running()
	p.Process().Signal(syscall.SIGSTOP)
	s.copy(t)
	s.device.Sync(t)
	p.Process().Signal(syscall.SIGCONT)
}

func (s *soak) alter(t *testing.T) {
	s.copy(t)
	if p := s.running(); len(p.Shards(t)) > 0 {
		p.Alter(t)
	}
}

func (s *soak) loseDevice(t *testing.T) {
	s.copy(t)
	s.device.Sync(t)
	words := s.device.Words
	s.device.Destroy(t)
	s.device = s.swarm.Recover(t, words)
	s.device.Mount(t)
}
