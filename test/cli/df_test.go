package cli

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/test/harness"
)

// df tells what the peers could still store, offline too, and what is deleted
// comes free; a large hole takes nothing.
func TestDf(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 5, Offer: "256M"})
	d := swarm.NewDevice(t)
	d.Mount(t)
	empty := df(t, d.Mnt)
	if empty.free < 100<<20 || empty.free > 5*256<<20 || empty.total != empty.used()+empty.free || empty.used() > 1<<20 {
		t.Errorf("an empty drive on five offers of 256 MiB: %+v", empty)
	}
	write(t, d.Path("file"), "")
	must(t, os.Truncate(d.Path("file"), 1<<43))
	if now := df(t, d.Mnt); now.total > 1<<32 {
		t.Errorf("a hole of 8 TiB makes it %+v", now)
	}
	must(t, os.Remove(d.Path("file")))
	content := harness.Noise(rand.New(rand.NewPCG(3, 3)), 20<<20)
	must(t, os.WriteFile(d.Path("file"), content, 0o644))
	if now := df(t, d.Mnt); now.used() < 20<<20 || now.free > empty.free-19<<20 {
		t.Errorf("with 20 MiB: %+v, it was %+v", now, empty)
	}
	d.Sync(t)
	for _, p := range swarm.Peers {
		p.Kill()
	}
	d.Stop(t)
	d.MountAlone(t)
	harness.Quick(t, 5*time.Second, "df", func() {
		if now := df(t, d.Mnt); now.free < 50<<20 || now.free > empty.free || now.used() < 20<<20 {
			t.Errorf("offline after a restart: %+v, it was %+v", now, empty)
		}
	})
	must(t, os.Remove(d.Path("file")))
	harness.Until(t, 60*time.Second, "what was deleted comes free here", func() (bool, string) {
		s, err := d.TryStatus(t)
		return err == nil && s.Cache.Content == 0 && df(t, d.Mnt).used() < 1<<20, fmt.Sprintf("%+v, %v", s.Cache, err)
	})
}

// A new drive tells what the swarm takes as soon as that has said so, and not what
// fits here.
func TestDfOfANewDrive(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 5, Offer: "256M"})
	d := swarm.NewDevice(t, "--cache", "64M")
	d.MountAlone(t)
	harness.Until(t, 60*time.Second, "df tells of more than fits into the cache", func() (bool, string) {
		now := df(t, d.Mnt)
		return now.free > 128<<20, fmt.Sprintf("%+v", now)
	})
}

// A drive that has more than the peers can take tells one block and one inode as free,
// never none, offline and after a restart, too.
func TestDfOfFullPeers(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 4, Offer: "8M"})
	d := swarm.NewDevice(t)
	d.Mount(t)
	must(t, os.WriteFile(d.Path("file"), harness.Noise(rand.New(rand.NewPCG(4, 4)), 40<<20), 0o644))
	full := func(when string) {
		t.Helper()
		harness.Until(t, 60*time.Second, when+", one block is free", func() (bool, string) {
			var st unix.Statfs_t
			must(t, unix.Statfs(d.Mnt, &st))
			return st.Bavail == 1 && st.Bfree == 1 && st.Ffree == 1 && st.Files == 2 && st.Blocks == 40<<20/4096+1, fmt.Sprintf("%+v", st)
		})
	}
	full("with peers that are full")
	for _, p := range swarm.Peers {
		p.Kill()
	}
	full("without them")
	d.Stop(t)
	d.MountAlone(t)
	full("offline after a restart")
}

type space struct{ total, free int64 }

func (s space) used() int64 { return s.total - s.free }

func df(t *testing.T, dir string) space {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	if st.Files == 0 || st.Ffree == 0 || st.Ffree > st.Files {
		t.Errorf("%d of %d inodes are free", st.Ffree, st.Files)
	}
	return space{int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize}
}
