package hosted_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"skep/cache/hosted"
	"skep/chunker/group"
	"skep/test/seed"
	"skep/test/storetest"
)

// often is how often something is tried in the long tests of this package: less
// in short runs, more where SKEP_SOAK is a number.
func often(times int) int {
	n, _ := strconv.Atoi(os.Getenv("SKEP_SOAK"))
	if testing.Short() {
		times /= 3
	}
	return times * max(1, n)
}

// The power is cut at moments picked at random while workers put shards,
// records and leases; what was not flushed is lost, or there, or there in
// part. What was acknowledged is there, what was deleted stays so, and what is
// claimed is whole.
func TestPowerCut(t *testing.T) {
	r := recordChild(t)
	events := len(r.events(-1))
	random := rand.New(rand.NewPCG(seed.For(t), 0))
	scratch := memoryDir(t)
	for i := range often(100) {
		n := random.IntN(events + 1)
		dir := filepath.Join(scratch, strconv.Itoa(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		how := fate(random.IntN(int(fates)))
		r.after(n, how, random).write(t, dir)
		lookAfter(t, r.known(n), filepath.Join(dir, "hosted"))
		if t.Failed() {
			t.Fatalf("cut %d, after %d events, fate %d", i, n, how)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// recordChild records what a child does to its disk. It is a child because a
// process that uses a disk which it serves itself can hang.
func recordChild(t *testing.T) *recorder {
	t.Helper()
	mnt := t.TempDir()
	r := record(t, mnt)
	cmd, errs := child(t, filepath.Join(mnt, "hosted"), filepath.Join(mnt, marksName), [workers]int{}, 60)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, errs)
	}
	return r
}

// known is what was acknowledged in the first n events.
func (r *recorder) known(n int) *knowledge {
	k := newKnowledge()
	for _, e := range r.events(n) {
		if e.what == written && e.file == marksFile {
			if m, ok := parseMark(string(e.data)); ok {
				k.note(m)
			}
		}
	}
	return k
}

// lookAfter opens what is left of a store twice, and looks at it.
func lookAfter(t *testing.T, k *knowledge, dir string) {
	t.Helper()
	for range 2 {
		s, err := hosted.Open(dir, 256<<20)
		if err != nil {
			t.Fatal(err)
		}
		k.check(t, dir, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// memoryDir is a directory whose flushes cost nothing, where there is one.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "skep-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// A process is killed when a shard has its name and its folder is not flushed. The next
// one, which finds it there, acknowledges it to who brings it again, or says that it holds
// it: then the power goes.
func TestKilledBeforeTheFlush(t *testing.T) {
	t.Run("brought again", func(t *testing.T) {
		killedBeforeTheFlush(t, func(s *hosted.Store, o *storetest.Owner) { put(t, s, o.Pack(t, 0)) })
	})
	t.Run("said to be held", func(t *testing.T) {
		killedBeforeTheFlush(t, func(s *hosted.Store, o *storetest.Owner) {
			must(t, s.Settle(o.ID))
			if g, _ := s.Holding(o.ID); g.Held.Count() != 1 {
				t.Errorf("%d shards are held", g.Held.Count())
			}
		})
	})
}

func killedBeforeTheFlush(t *testing.T, then func(*hosted.Store, *storetest.Owner)) {
	other := t.TempDir()
	a, o := filled(t, other, 1)
	_ = a.Close()
	file := shardFiles(t, other)[0]
	content, err := os.ReadFile(file)
	must(t, err)

	mount := t.TempDir()
	r := record(t, mount)
	dir := filepath.Join(mount, "hosted")
	s := open(t, dir, 64<<20)
	l, word := o.Lease(4, storetest.Until)
	_, err = s.Admit(l, word, 1, group.PeerKey{})
	must(t, err)
	must(t, s.Close())
	in := filepath.Join(dir, "tmp", "1")
	f, err := os.Create(in)
	must(t, err)
	_, err = f.Write(content)
	must(t, errors.Join(err, f.Sync(), f.Close()))
	must(t, os.Rename(in, filepath.Join(dir, "groups", o.ID.String(), filepath.Base(file))))

	s = open(t, dir, 64<<20)
	then(s, o)
	end := len(r.events(-1))
	must(t, s.Close())
	after := t.TempDir()
	r.after(end, allLost, rand.New(rand.NewPCG(1, 1))).write(t, after)
	s = open(t, filepath.Join(after, "hosted"), 64<<20)
	defer s.Close()
	storetest.Check(t, s, o.Pack(t, 0), 1)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
