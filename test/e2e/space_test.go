package e2e

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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
