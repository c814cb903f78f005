package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"skep/cmd/skep/control"
	"skep/test/harness"
	"skep/test/liar"
)

// ways are those in which the liars lie, one each.
var ways = []string{"flip", "forge", "claim", "other", "stall", "flood"}

// TestLiars reads a drive of which more than a third of the holders begin to
// lie, each in its own way: all bytes are right, reading is not held up for
// long, and status says who lied.
func TestLiars(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 10, DeadAfter: 30 * time.Second})
	l := &liars{swarm: swarm, source: filepath.Join(harness.Dir(t), "source"), peers: map[string]*harness.Peer{}}
	for _, how := range ways {
		l.peers[how] = swarm.AddProgram(t, func(home, bootstrap string) *exec.Cmd { return liar.Command(how, home, bootstrap) })
	}
	must(t, os.Mkdir(l.source, 0o755))
	harness.Files(t, l.source, files, 400_000, 11)

	s := steps{t}
	s.step("while all are honest", l.store)
	s.step("read from liars", l.read)
	s.step("blame", l.blame)
	s.step("recover among liars", l.again)
}

type liars struct {
	swarm  *harness.Swarm
	device *harness.Device
	source string
	peers  map[string]*harness.Peer
}

func (l *liars) store(t *testing.T) {
	first := l.swarm.NewDevice(t)
	first.Mount(t)
	first.WaitStatus(t, 60*time.Second, "all peers are known, with their room", func(s control.Status) bool {
		known := 0
		for _, p := range s.Peers {
			if p.Free > 0 {
				known++
			}
		}
		return known == len(l.swarm.Peers)
	})
	harness.Rsync(t, "-a", l.source+"/", first.Path("tree")+"/")
	first.Sync(t)
	first.WaitSafe(t, 60*time.Second)
	for how, p := range l.peers {
		if len(p.Shards(t)) == 0 {
			t.Fatalf("the liar that would %s has no shards", how)
		}
	}
	first.Destroy(t)
	l.device = l.swarm.Recover(t, first.Words)
}

// lieDelay is how long reading all may take because of the liars. It is far
// more than it should, as the machine may be busy.
const lieDelay = 90 * time.Second

func (l *liars) read(t *testing.T) {
	for _, p := range l.peers {
		p.Process().Signal(liar.Signal) // once more does no harm
	}
	l.device.MountAlone(t) // those who lie soon count as dead
	began := time.Now()
	harness.Same(t, l.source, l.device.Path("tree"))
	took := time.Since(began)
	t.Logf("read in %v", took)
	if took > lieDelay {
		t.Errorf("reading took %v", took)
	}
}

// blame waits until status names all liars, and no other peer. Who claims to
// have what it does not is no liar as long as it says so when it is asked for
// it: its shards count as missing.
func (l *liars) blame(t *testing.T) {
	blamed := func(s control.Status) []string {
		var ids []string
		for _, p := range s.Peers {
			if p.Lies > 0 || p.State == "dead" {
				ids = append(ids, p.ID)
			}
		}
		return ids
	}
	missing := func(s control.Status) []string {
		var not []string
		for how, p := range l.peers {
			if !slices.Contains(blamed(s), p.ID()) && how != "claim" {
				not = append(not, how)
			}
		}
		return not
	}
	var last []string
	s := l.device.WaitStatus(t, 3*time.Minute, "status blames the liars", func(s control.Status) bool {
		if now := missing(s); len(now) != len(last) {
			last = now
			t.Logf("not blamed yet: %v", last)
		}
		return len(last) == 0
	})
	for _, p := range s.Peers {
		if p.Lies > 0 && !slices.ContainsFunc(ways, func(how string) bool { return l.peers[how].ID() == p.ID }) {
			t.Errorf("an honest peer is blamed: %s", p.ID)
		}
	}
	text := l.device.Skep(t, "status").OK(t)
	if id := l.peers["flip"].ID(); !strings.Contains(text, id+" sent what cannot be true") {
		t.Errorf("status does not name the liar %s:\n%s", id, text)
	}
}

// again brings the drive back on one more device, which does not know yet who
// lies.
func (l *liars) again(t *testing.T) {
	words := l.device.Words
	l.device.Destroy(t)
	must(t, os.Remove(l.device.Mnt)) // its name is taken again
	l.device = l.swarm.Recover(t, words)
	l.read(t)
}
