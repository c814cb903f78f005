package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"skep/cmd/skep/control"
	"skep/test/harness"
)

// TestCrash kills the daemon of a drive at bad moments. Whatever a program was
// told to be written is there afterwards, and what was deleted before leaves
// the disks of the peers.
func TestCrash(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 10, DeadAfter: 30 * time.Second})
	c := &crash{swarm: swarm, device: swarm.NewDevice(t), mirror: filepath.Join(harness.Dir(t), "mirror")}
	must(t, os.Mkdir(c.mirror, 0o755))
	c.device.Mount(t)
	must(t, os.Mkdir(c.data(), 0o755))

	s := steps{t}
	s.step("while writing", c.whileWriting)
	s.step("while uploading", c.whileUploading)
	s.step("deleted files leave the peers", c.deleted)
	s.step("recovery", c.recovery)
}

type crash struct {
	swarm  *harness.Swarm
	device *harness.Device
	mirror string // what must be in the drive
}

// data is a path of what the mirror mirrors.
func (c *crash) data(name ...string) string {
	return c.device.Path(append([]string{"data"}, name...)...)
}

// restart starts the daemon again after a kill, over the dead mount.
func (c *crash) restart(t *testing.T) {
	t.Helper()
	c.device.MountAlone(t)
}

func (c *crash) whileWriting(t *testing.T) {
	writers := []*writer{
		{name: "grown", flags: os.O_CREATE | os.O_WRONLY | os.O_EXCL, piece: 256 << 10},
		{name: "small pieces", flags: os.O_CREATE | os.O_WRONLY, piece: 700},
		{name: "log", flags: os.O_CREATE | os.O_WRONLY | os.O_APPEND, piece: 3000},
		{name: "read and written", flags: os.O_CREATE | os.O_RDWR, piece: 9000},
	}
	done := make(chan struct{}, len(writers)+1)
	began := time.Now()
	for i, w := range writers {
		w.seed = uint64(i + 1)
		go func() { w.run(c.data(w.name)); done <- struct{}{} }()
	}
	names := &namer{dir: c.data("names")}
	must(t, os.Mkdir(names.dir, 0o755))
	go func() { names.run(); done <- struct{}{} }()
	harness.Until(t, 60*time.Second, "all have written something", func() (bool, string) {
		ready := names.made.Load() > 50
		for _, w := range writers {
			ready = ready && w.acknowledged.Load() > int64(40*w.piece)
		}
		return ready, fmt.Sprint(names.made.Load())
	})
	t.Logf("killing after %v", time.Since(began))
	c.device.Process().Kill()
	for range len(writers) + 1 {
		<-done
	}
	c.restart(t)
	for _, w := range writers {
		w.check(t, c.data(w.name))
	}
	names.check(t)
	c.keep(t)
}

// keep makes the mirror what the drive is now.
func (c *crash) keep(t *testing.T) {
	t.Helper()
	harness.Rsync(t, "-aHAX", "--delete", c.data()+"/", c.mirror+"/")
}

// writer writes pieces to one file until that fails.
type writer struct {
	name         string
	flags, piece int
	seed         uint64
	acknowledged atomic.Int64 // bytes
}

func (w *writer) run(path string) {
	f, err := os.OpenFile(path, w.flags, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	r := rand.New(rand.NewPCG(w.seed, 3))
	for w.acknowledged.Load() < 64<<20 {
		n, err := f.Write(harness.Noise(r, w.piece))
		w.acknowledged.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// check reads what was acknowledged.
func (w *writer) check(t *testing.T, path string) {
	t.Helper()
	got, err := os.ReadFile(path)
	must(t, err)
	st, err := os.Stat(path)
	must(t, err)
	n := int(w.acknowledged.Load())
	if int(st.Size()) != len(got) || len(got) < n { // what is passed through reads on beyond its size
		t.Errorf("%s: %d of %d written bytes are there, its size is %d", w.name, len(got), n, st.Size())
		return
	}
	r := rand.New(rand.NewPCG(w.seed, 3))
	for off := 0; off < n; off += w.piece {
		if want := harness.Noise(r, w.piece); !bytes.Equal(want, got[off:min(len(got), off+w.piece)]) && off+w.piece <= n {
			t.Errorf("%s: other bytes at %d of %d", w.name, off, n)
			return
		}
	}
}

// namer makes, renames and removes files until that fails: of every three, one
// stays, one is renamed over another, one goes.
type namer struct {
	dir  string
	made atomic.Int64 // rounds that were completed
}

func (n *namer) path(what string, i int64) string {
	return filepath.Join(n.dir, fmt.Sprintf("%s%d", what, i))
}

func (n *namer) run() {
	for i := int64(0); i < 1e6; i++ {
		if n.round(i) != nil {
			return
		}
		n.made.Add(1)
	}
}

func (n *namer) round(i int64) error {
	for _, what := range []string{"stay", "new", "over", "gone"} {
		if err := os.WriteFile(n.path(what, i), fmt.Appendf(nil, "%s %d", what, i), 0o600); err != nil {
			return err
		}
	}
	if err := os.Rename(n.path("new", i), n.path("over", i)); err != nil {
		return err
	}
	return os.Remove(n.path("gone", i))
}

func (n *namer) check(t *testing.T) {
	t.Helper()
	for i := range n.made.Load() {
		for file, want := range map[string]string{"stay": "stay", "over": "new"} {
			if b, err := os.ReadFile(n.path(file, i)); err != nil || string(b) != fmt.Sprintf("%s %d", want, i) {
				t.Fatalf("%s%d: %q, %v", file, i, b, err)
			}
		}
		for _, file := range []string{"new", "gone"} {
			if _, err := os.Lstat(n.path(file, i)); !os.IsNotExist(err) {
				t.Fatalf("%s%d is back: %v", file, i, err)
			}
		}
	}
}

func (c *crash) whileUploading(t *testing.T) {
	must(t, os.Mkdir(filepath.Join(c.mirror, "upload"), 0o755))
	harness.Files(t, filepath.Join(c.mirror, "upload"), 40, 1<<20, 5)
	harness.Rsync(t, "-a", c.mirror+"/", c.data()+"/")
	for killed, tries := 0, 0; killed < 3; tries++ {
		if tries == 9 {
			t.Fatal("each upload has ended before the daemon was killed")
		}
		if c.killUploading(t, tries) {
			killed++
		}
	}
	harness.Same(t, c.mirror, c.data())
	c.device.Sync(t)
	if s := c.device.WaitSafe(t, 60*time.Second); s.PendingFiles != 0 {
		t.Errorf("after a sync %d changes are pending", s.PendingFiles)
	}
}

// killUploading kills the daemon while some of what it uploads is with holders, and some
// is not. It reports whether that was so: whoever waited for the end has not seen it then.
func (c *crash) killUploading(t *testing.T, try int) bool {
	t.Helper()
	const waiting = 8 << 20
	before := c.swarm.Hosted(t)
	more := filepath.Join(c.mirror, fmt.Sprintf("more%d", try))
	must(t, os.WriteFile(more, harness.Noise(rand.New(rand.NewPCG(uint64(try), 5)), 4*waiting), 0o644))
	harness.Rsync(t, "-a", c.mirror+"/", c.data()+"/") // with the folder's own time
	syncing := exec.Command(harness.Binary(), "--home", c.device.Home, "sync")
	must(t, syncing.Start())
	at := c.device.WaitStatus(t, 60*time.Second, "an upload is under way, or has ended", func(s control.Status) bool {
		return s.Uploading && s.PendingBytes-s.UploadedNow >= waiting && c.swarm.Hosted(t) > before || s.PendingFiles == 0
	})
	c.device.Process().Kill()
	killed := syncing.Wait() != nil
	t.Logf("killed with %d bytes sent and %d pending: %v", at.UploadedNow, at.PendingBytes, killed)
	c.restart(t)
	return killed && at.PendingFiles > 0
}

// deleted removes most of the content: what is left at the peers is about what
// the rest needs.
func (c *crash) deleted(t *testing.T) {
	before := c.swarm.Hosted(t)
	old, err := filepath.Glob(filepath.Join(c.mirror, "upload", "d0[0-6]"))
	must(t, err)
	for _, f := range append(old, "grown", "small pieces", "log", "read and written") {
		if !filepath.IsAbs(f) {
			f = filepath.Join(c.mirror, f)
		}
		must(t, os.RemoveAll(f))
	}
	harness.Rsync(t, "-aHAX", "--delete", c.mirror+"/", c.data()+"/")
	needed := c.needed(t)
	round := 0
	harness.Until(t, 60*time.Second, "the peers deleted what nothing needs", func() (bool, string) {
		// Space comes back with the commits that follow.
		must(t, os.WriteFile(c.device.Path("round"), fmt.Append(nil, round), 0o644))
		round++
		c.device.Sync(t)
		now := c.swarm.Hosted(t)
		return now < needed, fmt.Sprintf("%d bytes before, %d now after %d syncs, %d would do", before, now, round, needed)
	})
	t.Logf("%d bytes at the peers before, %d after %d syncs, %d would do", before, c.swarm.Hosted(t), round, needed)
	harness.Same(t, c.mirror, c.data())
	c.device.Sync(t)
}

// needed is how many bytes the mirror may take at the peers: its size, coded,
// in packs of which half may be dead and half may be padding; and metadata.
func (c *crash) needed(t *testing.T) int64 {
	t.Helper()
	var size int64
	err := filepath.WalkDir(c.mirror, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		fi, err := e.Info()
		size += fi.Size()
		return err
	})
	must(t, err)
	worst := 1.0
	for _, k := range c.device.Status(t).Codings {
		if k.Kind == "content" {
			worst = max(worst, float64(k.N)/float64(k.K))
		}
	}
	return int64(4*worst*float64(size)) + 4<<20
}

// recovery brings the drive back on another device, to see that what was
// uploaded after the crashes is whole.
func (c *crash) recovery(t *testing.T) {
	c.device.Destroy(t)
	again := c.swarm.Recover(t, c.device.Words)
	again.Mount(t)
	harness.Same(t, c.mirror, again.Path("data"))
}
