package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"skep/cmd/skep/control"
	"skep/test/harness"
)

// A drive with a small cache takes in several times as much, in files larger
// and smaller than the cache: it stays within its limit all the time, nothing
// is lost, and all of it reads back right.
func TestSmallCache(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 6})
	d := swarm.NewDevice(t, "--cache", "64M")
	d.Mount(t)
	source := filepath.Join(swarm.Dir, "source")
	must(t, os.Mkdir(source, 0o755))
	r := rand.New(rand.NewPCG(7, 7))
	big := 80 << 20
	many := 20
	if os.Getenv(soakRounds) != "" {
		big, many = 150<<20, 50
	}
	must(t, os.WriteFile(filepath.Join(source, "big"), harness.Noise(r, big), 0o644))
	for i := range many {
		must(t, os.WriteFile(filepath.Join(source, fmt.Sprint("file", i)), harness.Noise(r, 3<<20), 0o644))
	}
	harness.Files(t, source, 200, 10_000, 3)

	most := watchUse(t, d.Home)
	harness.Rsync(t, "-a", source+"/", d.Path("tree")+"/")
	numbers := harness.Inodes(t, d.Path("tree"))
	d.Sync(t)
	harness.Same(t, source, d.Path("tree"))
	s := d.Status(t)
	if s.Cache.Limit != 64<<20 || s.Cache.Evicted < int64(big)/2 || s.Bytes < int64(big)+int64(many)*(3<<20) || s.Cache.Here+s.Cache.Evicted != s.Bytes {
		t.Errorf("status tells %+v of %d bytes", s.Cache, s.Bytes)
	}
	if n := most(); n > s.Cache.Limit+s.Cache.Reserve {
		t.Errorf("at its peak the drive took %d bytes of this disk, of %d and a reserve of %d", n, s.Cache.Limit, s.Cache.Reserve)
	}
	d.Kill() // nothing that is here is claimed and not there
	d.Mount(t)
	harness.Same(t, source, d.Path("tree"))
	if now := harness.Inodes(t, d.Path("tree")); !maps.Equal(now, numbers) {
		t.Errorf("inode numbers %v; before content was let go of and came back: %v", now, numbers)
	}
}

// TestLastCopyStays takes most holders of a file away for good while the device is off:
// what cannot be read from them then is here alone, and stays, however much is written, and
// keeps nothing else from going.
func TestLastCopyStays(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 6, DeadAfter: 72 * time.Hour})
	d := swarm.NewDevice(t, "--cache", "64M")
	d.Mount(t)
	r := rand.New(rand.NewPCG(1, 1))
	precious := harness.Noise(r, 20<<20)
	must(t, os.WriteFile(d.Path("precious"), precious, 0o644))
	d.Sync(t)
	d.WaitSafe(t, time.Minute)
	d.Stop(t)
	old := swarm.Peers
	for range 4 {
		swarm.Add(t)
	}
	for _, p := range old[1:] {
		p.Destroy(t)
	}
	d.MountAlone(t)
	d.WaitStatus(t, time.Minute, "the five that are left answer", func(s control.Status) bool { return harness.Alive(s) >= 5 })
	harness.Until(t, time.Minute, "status calls the file away", func() (bool, string) {
		s, err := d.TryStatus(t, d.Path("precious"))
		return err == nil && len(s.Paths) == 1 && s.Paths[0].State == "away", fmt.Sprintf("%+v, %v", s.Paths, err)
	})
	for i := range 60 { // what is out goes to make room, though it would go after the file
		must(t, os.WriteFile(d.Path(fmt.Sprint("new", i)), harness.Noise(r, 1<<20), 0o644))
		if i%20 == 19 {
			d.Skep(t, "sync", "--timeout", "80s").OK(t)
		}
	}
	if p := d.Status(t, d.Path("precious")).Paths[0]; p.Resident != int64(len(precious)) {
		t.Errorf("of the only copy %d of %d bytes are left", p.Resident, len(precious))
	}
	if got, err := os.ReadFile(d.Path("precious")); err != nil || !bytes.Equal(got, precious) {
		t.Errorf("it reads as %d bytes, %v", len(got), err)
	}
}

// watchUse looks at what a home takes on the disk, again and again, until the
// function that it returns is called, which tells the most.
func watchUse(t *testing.T, home string) (most func() int64) {
	var peak atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			peak.Store(max(peak.Load(), taken(home)))
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	end := func() { close(stop); <-stopped }
	ended := false
	t.Cleanup(func() {
		if !ended {
			end()
		}
	})
	return func() int64 {
		ended = true
		end()
		return peak.Load()
	}
}

// taken is how many bytes the files below a directory take on the disk.
func taken(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile
		}
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
			n += fi.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	return n
}
