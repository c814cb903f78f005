package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/test/blockdev"
	crashes "skep/test/crash"
	"skep/test/harness"
	"skep/test/model"
	"skep/test/seed"
)

// powerEnv, set to a duration, lets TestPower go on for so long.
const powerEnv = "SKEP_CRASH"

// TestPower takes the power away, again and again, from the disk that the home of
// a real daemon is on, while it starts, while files change, and while a commit
// goes out to real peers. What is there afterwards may be there, and the drive
// goes on from it. At the end another device recovers what was synced.
func TestPower(t *testing.T) {
	if err := blockdev.Usable(); err != nil {
		t.Skip(err)
	}
	lasts, _ := time.ParseDuration(os.Getenv(powerEnv))
	for name, small := range map[string]bool{"passed through": false, "a small cache": true} {
		if small && lasts == 0 {
			continue // what has to be let go of first takes long to write
		}
		t.Run(name, func(t *testing.T) {
			p := newPowered(t, seed.For(t), small)
			end := time.Now().Add(lasts)
			for i := 0; i < 5 || time.Now().Before(end); i++ {
				p.round(t)
			}
			p.recovered(t)
			t.Logf("the power went %d times: %d in the midst of operations, %d while the daemon started", p.rounds, p.amidst, p.starting)
		})
	}
}

// powered is a drive whose home is on a disk that power is taken from.
type powered struct {
	random *rand.Rand
	swarm  *harness.Swarm
	device *harness.Device
	dev    *blockdev.Device
	disk   string         // where it is mounted
	image  blockdev.Image // what was on it when the power came

	mount *model.Mount // the part of the drive that changes
	model *model.Tree
	other []byte // what makes a small cache let go; nil: none

	off                      atomic.Bool // the power is
	rounds, amidst, starting int
}

// poweredSize is that of a disk where there is room enough to pass files through.
const poweredSize = 2 << 30

func newPowered(t *testing.T, from uint64, small bool) *powered {
	p := &powered{random: rand.New(rand.NewPCG(from, 8)), swarm: harness.NewSwarm(t, harness.Options{Peers: 5}), model: model.New()}
	p.disk = filepath.Join(p.swarm.Dir, "disk")
	under := filepath.Join(p.swarm.Dir, "under")
	must(t, os.Mkdir(p.disk, 0o700))
	must(t, os.Mkdir(under, 0o700))
	var err error
	p.dev, err = blockdev.New(under, poweredSize)
	must(t, err)
	t.Cleanup(func() {
		harness.Detach(p.disk)
		if err := p.dev.Close(); err != nil {
			t.Error(err)
		}
	})
	must(t, p.dev.Format())
	p.plugIn(t, p.dev.Image())
	var args []string
	if small {
		args = []string{"--cache", "64M"}
		p.other = harness.Noise(p.random, 70<<20)
	}
	p.device = p.swarm.NewDeviceAt(t, filepath.Join(p.disk, "home"), args...)
	p.device.Mount(t)
	p.mount = &model.Mount{Root: p.device.Path("model"), Maintain: p.maintain(t)}
	must(t, os.Mkdir(p.mount.Root, 0o755))
	if small {
		must(t, os.WriteFile(p.device.Path("other"), p.other, 0o644))
	}
	p.device.Sync(t)
	p.device.Stop(t)
	p.unplug(t, blockdev.Losses(p.random, 0)[0])
	return p
}

// maintain does what no call of a program does.
func (p *powered) maintain(t *testing.T) func(model.Op) error {
	return func(op model.Op) error {
		if op.Kind != model.Commit {
			return nil
		}
		r := p.device.Skep(t, "sync", "--timeout", "80s")
		if r.Code == 0 {
			return nil
		}
		if !p.off.Load() {
			t.Logf("sync: %s", r.Stderr)
		}
		return unix.EIO
	}
}

// plugIn has the disk hold an image and mounts it.
func (p *powered) plugIn(t *testing.T, m blockdev.Image) {
	t.Helper()
	p.image = m
	p.off.Store(false)
	must(t, p.dev.Load(m))
	must(t, p.dev.Mount(p.disk))
}

// unplug ends all that uses the disk, and plugs in what is left of it when the
// power went.
func (p *powered) unplug(t *testing.T, loss blockdev.Loss) {
	t.Helper()
	p.device.Kill()
	p.mount.CloseAll()
	events := p.dev.Events()
	harness.Until(t, time.Minute, "the disk is unmounted", func() (bool, string) {
		err := unix.Unmount(p.disk, 0)
		return err == nil, fmt.Sprint(err)
	})
	p.plugIn(t, blockdev.PowerLoss(p.image, events, loss))
}

// cut takes the power away after some events of the disk.
func (p *powered) cut(n int) {
	daemon := p.device.Process()
	p.dev.Cut(n, func() {
		p.off.Store(true)
		daemon.Signal(syscall.SIGKILL)
	})
}

// loss is one at random.
func (p *powered) loss() blockdev.Loss {
	all := blockdev.Losses(p.random, 3)
	return all[p.random.IntN(len(all))]
}

// round changes files until the power goes, and looks at what is left.
func (p *powered) round(t *testing.T) {
	p.rounds++
	if p.random.IntN(4) == 0 {
		p.start(t)
	}
	p.device.Mount(t)
	p.cut(1 + p.random.IntN(1<<p.random.IntN(8)))
	ops := crashes.Random(p.random).Ops
	h, trees, acknowledged, err := p.until(ops)
	if err != nil {
		t.Fatalf("%v: %v", ops, err)
	}
	loss := p.loss()
	p.unplug(t, loss)
	p.device.MountAlone(t)
	l, err := p.mount.List()
	must(t, err)
	i, err := h.Moment(l, acknowledged)
	if err != nil {
		t.Fatalf("power lost after operation %d of %v, losing %s: %v", acknowledged, ops, loss.Name, err)
	}
	p.model = trees[i]
	p.model.CloseAll()
	p.model.Take(l)
	p.check(t)
	p.device.Stop(t)
}

// start takes the power away while the daemon starts.
func (p *powered) start(t *testing.T) {
	p.device.BeginMount(t)
	p.cut(1 + p.random.IntN(30))
	harness.Until(t, time.Minute, "the drive is mounted, or the power is off", func() (bool, string) {
		s, err := p.device.TryStatus(t)
		return p.off.Load() || err == nil && len(s.Mounts) > 0, fmt.Sprint(err)
	})
	if p.off.Load() {
		p.starting++
	}
	p.unplug(t, p.loss())
}

// until does operations until the power is off, and tells what was promised, the
// tree after each, and how many were acknowledged.
func (p *powered) until(ops []model.Op) (h *crashes.History, trees []*model.Tree, acknowledged int, _ error) {
	h, trees = crashes.NewHistory(p.model.Listing()), []*model.Tree{p.model.Clone()}
	for i, op := range ops {
		switch op.Kind {
		case model.Sync: // of which no drive is told
			op.Kind, op.Path = model.SyncDir, ""
		case model.Commit: // which is of what was closed
			p.model.CloseAll()
			p.mount.CloseAll()
		}
		file := p.model.FileOf(op)
		want, got := p.model.Do(op), p.mount.Do(op)
		if op.Kind == model.Commit { // it promises at least that
			op.Kind = model.Sync
		}
		h.Add(op, want, file, p.model)
		trees = append(trees, p.model.Clone())
		if p.off.Load() {
			p.amidst++
			if got.Errno != want.Errno {
				return h, trees, i, nil
			}
			return h, trees, i + 1, nil
		}
		if got.Errno != want.Errno || !bytes.Equal(got.Data, want.Data) {
			return h, trees, i, fmt.Errorf("operation %d: %v: %v, want %v", i+1, op, got, want)
		}
	}
	return h, trees, len(ops), nil
}

// check reads all of what a small cache cannot hold, so that what changes is let
// go of, too.
func (p *powered) check(t *testing.T) {
	if p.other == nil || p.rounds%5 != 0 {
		return
	}
	got, err := os.ReadFile(p.device.Path("other"))
	must(t, err)
	if !bytes.Equal(got, p.other) {
		t.Fatal("what was not touched is not what was written")
	}
}

// recovered looks at the drive on another device.
func (p *powered) recovered(t *testing.T) {
	p.device.Mount(t)
	p.device.Sync(t)
	p.device.WaitSafe(t, 2*time.Minute)
	p.device.Kill()
	again := p.swarm.Recover(t, p.device.Words)
	again.Mount(t)
	l, err := (&model.Mount{Root: again.Path("model")}).List()
	must(t, err)
	if err := model.Differ(l, p.model.Listing()); err != nil {
		t.Errorf("recovered: %v", err)
	}
}
