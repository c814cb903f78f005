package e2e

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"skep/chunker/erasure"
	"skep/cmd/skep/control"
	"skep/test/harness"
)

// life is what the steps of TestLife share.
type life struct {
	swarm   *harness.Swarm
	device  *harness.Device
	source  string // ordinary files
	special string // all other things
	secrets *harness.Scanner

	liar        string     // the holder whose shards are altered
	altered     int        // how many
	alteredLeft func() int // how many are still there
}

// TestLife is the life of a drive: filled, looked at, hit by the loss of
// holders and at last of its device, and brought back from the words.
func TestLife(t *testing.T) {
	l := &life{source: source(t), special: filepath.Join(harness.Dir(t), "special"), secrets: harness.NewScanner()}
	must(t, os.Mkdir(l.special, 0o755))
	harness.Special(t, l.special, 1)
	l.swarm = harness.NewSwarm(t, harness.Options{Peers: 12, DeadAfter: 8 * time.Second})
	l.device = l.swarm.NewDevice(t)
	l.device.Mount(t)

	s := steps{t}
	s.step("copy", l.copy)
	s.step("redundancy", l.redundancy)
	s.step("secrecy", l.secrecy)
	s.step("loss of holders", l.lossOfHolders)
	s.step("loss of the device", l.lossOfDevice)
	s.step("recovery", l.recovery)
	s.step("secrecy after all", l.secrecy)
}

func (l *life) copy(t *testing.T) {
	for from, to := range map[string]string{l.source: "source", l.special: "special"} {
		harness.Rsync(t, "-aHAX", from+"/", l.device.Path(to)+"/")
		if again := harness.Rsync(t, "-aHAX", "-i", from+"/", l.device.Path(to)+"/"); again != "" {
			t.Errorf("a second rsync of %s was not idle:\n%s", from, again)
		}
	}
}

func (l *life) redundancy(t *testing.T) {
	l.device.Sync(t)
	s := l.device.WaitSafe(t, 60*time.Second)
	if s.PendingFiles != 0 || s.PendingBytes != 0 || !s.RecoveryOut {
		t.Errorf("after a sync, %d files with %d bytes are pending, recovery record out: %v", s.PendingFiles, s.PendingBytes, s.RecoveryOut)
	}
	for _, c := range s.Codings {
		if c.K < 1 || c.N <= c.K || c.Packs < 1 || c.Groups < 1 {
			t.Errorf("coding %+v", c)
		}
	}
}

func (l *life) secrecy(t *testing.T) {
	if l.device.Process() != nil && l.secretsKnown() {
		l.secrets.AddDevice(t, l.device)
	}
	if found := l.secrets.Find(recoveryWords(t, l.device)); len(found) == 0 {
		t.Fatal("the scanner does not find the words where they are")
	}
	outside := harness.NewScanner()
	outside.AddTree(t, l.source)
	outside.Add([]byte(harness.Canary), "the canary")
	noise, err := os.ReadFile(filepath.Join(l.special, "random")) // what compression alone does not hide
	must(t, err)
	outside.AddContent(noise, 64, "random")
	if found := outside.Find([]byte("…" + harness.Canary + "…" + string(noise[1001:1200]))); len(found) != 3 {
		t.Fatalf("the scanner itself found %q", found)
	}
	for _, p := range l.swarm.Peers {
		if _, err := os.Stat(p.Home); err != nil {
			continue // its disk is gone
		}
		for _, s := range []*harness.Scanner{outside, l.secrets} {
			if found, _ := s.Below(t, p.Home); len(found) > 0 {
				t.Errorf("readable at a peer: %q", found[:min(10, len(found))])
			}
		}
	}
	l.sizes(t)
	l.logs(t)
}

// sizes checks that what a shard takes at a holder follows from the class and the
// coding of its pack, and tells nothing else of what is in it.
func (l *life) sizes(t *testing.T) {
	t.Helper()
	if l.device.Process() == nil {
		return
	}
	allowed := map[int64]control.Coding{}
	for _, c := range l.device.Status(t).Codings {
		for class := erasure.MinClass; class <= erasure.MaxClass; class++ {
			if class.String() == c.Class {
				allowed[int64(erasure.NewCoding(c.K, c.N).ShardSize(class))] = c
			}
		}
	}
	seen := map[int64]int64{} // by the size of a shard: of its file
	for _, p := range l.swarm.Peers {
		for _, f := range p.Shards(t) {
			fi, err := os.Stat(f)
			must(t, err)
			shard := int64(0)
			for size := range allowed { // the head takes some pages
				if size <= fi.Size() && size > shard {
					shard = size
				}
			}
			if before, ok := seen[shard]; shard == 0 || ok && before != fi.Size() {
				t.Errorf("%s has %d bytes, others with shards of %d have %d", f, fi.Size(), shard, before)
			}
			seen[shard] = fi.Size()
		}
	}
	if len(seen) == 0 || len(seen) > len(allowed) {
		t.Errorf("shards of %d sizes, of packs in %d codings", len(seen), len(allowed))
	}
}

func recoveryWords(t *testing.T, d *harness.Device) []byte {
	t.Helper()
	b, err := os.ReadFile(d.Words)
	must(t, err)
	return b
}

func (l *life) secretsKnown() bool {
	_, err := os.Stat(filepath.Join(l.device.Home, "keys"))
	return err == nil
}

// logs checks that no log tells a secret.
func (l *life) logs(t *testing.T) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(l.swarm.Dir, "*.log"))
	must(t, err)
	own, err := filepath.Glob(filepath.Join(l.swarm.Dir, "*", "daemon.log")) // of daemons in the background
	must(t, err)
	for _, log := range append(logs, own...) {
		b, err := os.ReadFile(log)
		must(t, err)
		if found := l.secrets.Find(b); len(found) > 0 {
			t.Errorf("%s tells %q", log, found)
		}
	}
}

// lossOfHolders takes one holder with its disk away, which heals by itself.
func (l *life) lossOfHolders(t *testing.T) {
	holders := l.holders(t)
	holders[0].Destroy(t)
	began := time.Now()
	defer func() {
		t.Logf("whole again after %v, %v of them to call it dead", time.Since(began).Round(time.Second), l.swarm.Opt.DeadAfter)
	}()
	l.device.WaitStatus(t, 2*time.Minute, "its shards are with others", func(s control.Status) bool {
		return harness.Safe(s) && !slices.ContainsFunc(s.Peers, func(p control.Peer) bool {
			return p.Shards > 0 && l.swarm.ByID(p.ID) == holders[0]
		})
	})
}

// holders are the running peers, those with most shards of the drive first.
func (l *life) holders(t *testing.T) []*harness.Peer {
	t.Helper()
	s := l.device.Status(t)
	slices.SortFunc(s.Peers, func(a, b control.Peer) int { return cmp.Compare(b.Shards, a.Shards) })
	var out []*harness.Peer
	for _, p := range s.Peers {
		if q := l.swarm.ByID(p.ID); q != nil && q.Running() {
			out = append(out, q)
		}
	}
	return out
}

// lossOfDevice takes as many holders away as may be lost but one, has one more
// alter what it holds, and loses the device.
func (l *life) lossOfDevice(t *testing.T) {
	l.device.Skep(t, "repair", "pause").OK(t)
	spare := harness.Spare(t, l.device.Status(t))
	holders := l.holders(t)
	t.Logf("%d holders are killed, one more alters its shards", spare)
	if spare < 1 || len(holders) < 8 {
		t.Fatalf("%d of %d holders may be lost", spare, len(holders))
	}
	for _, p := range holders[:spare] {
		p.Destroy(t)
	}
	l.altered, l.alteredLeft = holders[spare].Alter(t)
	l.liar = holders[spare].ID()
	l.device.Destroy(t)
}

// mountDelay is how long mounting may take on a bare machine. It is far more than
// it should, as the machine may be busy.
const mountDelay = 20 * time.Second

func (l *life) recovery(t *testing.T) {
	l.device = l.swarm.Recover(t, l.device.Words)
	began := time.Now()
	l.device.MountAlone(t)
	t.Logf("mounted after %v", time.Since(began))
	if took := time.Since(began); took > mountDelay {
		t.Errorf("mounting took %v", took)
	}
	harness.Same(t, l.special, l.device.Path("special"))
	harness.Same(t, l.source, l.device.Path("source"))
	// An honest holder gives up a shard when it sees that it is damaged; of one that
	// gave it out before, status tells.
	l.device.WaitStatus(t, 2*time.Minute, "the altered shards are found", func(s control.Status) bool {
		return l.alteredLeft() < l.altered || slices.ContainsFunc(s.Peers, func(p control.Peer) bool { return p.ID == l.liar && p.Lies > 0 })
	})
}
