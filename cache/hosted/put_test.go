package hosted

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/test/storetest"
)

// flushing reports whether somebody waits for the next flush to begin.
func (f *flusher) flushing() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next != nil
}

// begun is a store with a group in slot 1, and its owner.
func begun(t *testing.T, dir string) (*Store, *storetest.Owner) {
	t.Helper()
	s, err := Open(dir, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	o := storetest.NewOwner(1, 18, 2, 3)
	l, word := o.Lease(4, storetest.Until)
	if _, err := s.Admit(l, word, 1, group.PeerKey{}); err != nil {
		t.Fatal(err)
	}
	return s, o
}

// arrive begins to put a shard, and waits until it is in its place; its folder is not
// flushed before release.
func arrive(t *testing.T, s *Store, p storetest.Pack, folder *flusher) (done chan error) {
	t.Helper()
	done = make(chan error, 1)
	h, _ := s.lookup(p.Manifest.Group)
	s.mu.Lock()
	before := h.arriving[p.Manifest.Number].puts
	s.mu.Unlock()
	go func() { done <- s.PutShard(&p.Manifest, p.Word, 1, bytes.NewReader(p.Shards[1])) }()
	for late := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		there := h.arriving[p.Manifest.Number].puts > before
		s.mu.Unlock()
		if there && folder.flushing() {
			return done
		}
		if time.Now().After(late) {
			t.Fatal("the shard did not arrive")
		}
	}
}

// other is another pack under the number of p.
func other(o *storetest.Owner, p storetest.Pack) storetest.Pack {
	q := storetest.Pack{Manifest: p.Manifest, Shards: [][]byte{p.Shards[0], p.Shards[0], p.Shards[0]}}
	r := erasure.RootOf(p.Shards[0])
	q.Manifest.Roots = []erasure.Root{r, r, r}
	q.Word = q.Manifest.Sign(o.Key)
	return q
}

// Of two packs under one number that come at once, one is refused, and the other one is
// there.
func TestTwoPacksOfOneNumberAtOnce(t *testing.T) {
	s, o := begun(t, t.TempDir())
	h, _ := s.lookup(o.ID)
	h.sync.turn.Lock()
	p := o.Pack(t, 0)
	q := other(o, p)
	one := arrive(t, s, p, h.sync)
	refused := make(chan error, 1)
	go func() { refused <- s.PutShard(&q.Manifest, q.Word, 1, bytes.NewReader(q.Shards[1])) }()
	select {
	case err := <-refused:
		if !errors.Is(err, group.ErrInvalid) {
			t.Errorf("the other pack: %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the other pack is not refused")
	}
	again := arrive(t, s, p, h.sync)
	h.sync.turn.Unlock()
	for _, done := range []chan error{one, again} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	storetest.Check(t, s, p, 1)
	if len(h.arriving) > 0 {
		t.Errorf("%d packs go on arriving", len(h.arriving))
	}
}

// A put that fails in the end takes nothing away from another one of the same shard.
func TestPutThatFailsBesideAnother(t *testing.T) {
	s, o := begun(t, t.TempDir())
	h, _ := s.lookup(o.ID)
	good, bad := h.sync, &flusher{root: s.root, dir: "nowhere"}
	good.turn.Lock()
	bad.turn.Lock()
	h.sync = bad
	fails := arrive(t, s, o.Pack(t, 0), bad)
	h.sync = good
	works := arrive(t, s, o.Pack(t, 0), good)
	bad.turn.Unlock()
	if err := <-fails; err == nil {
		t.Error("it was flushed")
	}
	good.turn.Unlock()
	if err := <-works; err != nil {
		t.Error(err)
	}
	storetest.Check(t, s, o.Pack(t, 0), 1)
}

// first is a reader of nothing that does something when it is read.
type first func()

func (f first) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// A shard that comes while another put of it is received is not put in its place again.
func TestShardThatIsThereWhenItHasArrived(t *testing.T) {
	s, o := begun(t, t.TempDir())
	p := o.Pack(t, 0)
	q := other(o, p)
	for _, c := range []struct {
		storetest.Pack
		want error
	}{{p, nil}, {q, group.ErrInvalid}} {
		between := func() {
			if err := s.PutShard(&p.Manifest, p.Word, 1, bytes.NewReader(p.Shards[1])); err != nil {
				t.Error(err)
			}
		}
		body := io.MultiReader(first(between), bytes.NewReader(c.Shards[1]))
		if err := s.PutShard(&c.Manifest, c.Word, 1, body); !errors.Is(err, c.want) {
			t.Errorf("the slower one: %v", err)
		}
		storetest.Check(t, s, p, 1)
		if err := storetest.Clear(s, o.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// A reader that found damage removes the shard that it has read, not one that was
// brought since.
func TestDamagedShardThatWasReplaced(t *testing.T) {
	dir := t.TempDir()
	s, o := begun(t, dir)
	p := o.Pack(t, 0)
	bring := func() {
		if err := s.PutShard(&p.Manifest, p.Word, 1, bytes.NewReader(p.Shards[1])); err != nil {
			t.Fatal(err)
		}
	}
	bring()
	err := s.read(o.ID, 0, func(sh *shardFile) error {
		if err := os.WriteFile(filepath.Join(dir, sh.name), make([]byte, sh.start+int64(sh.size)), 0); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(o.ID, 0); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("damage: %v", err)
		}
		bring()
		return ErrDamaged
	})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the reader is told %v", err)
	}
	storetest.Check(t, s, p, 1)
}

// Who asks for another slot of an empty group, again and again, keeps no shard out.
func TestPutWhileTheSlotChanges(t *testing.T) {
	for range 20 {
		s, o := begun(t, t.TempDir())
		l, word := o.Lease(5, storetest.Until)
		stop := make(chan struct{})
		var others sync.WaitGroup
		for w := range uint8(4) {
			others.Go(func() {
				for slot := w; ; slot++ {
					select {
					case <-stop:
						return
					default:
						_, _ = s.Admit(l, word, 1+slot%2, group.PeerKey{})
					}
				}
			})
		}
		p := o.Pack(t, 0)
		err := s.PutShard(&p.Manifest, p.Word, 0, bytes.NewReader(p.Shards[0]))
		close(stop)
		others.Wait()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A shard that is put twice at once, and deleted between the ends of both, is not there.
func TestDeletedBetweenTwoPuts(t *testing.T) {
	s, o := begun(t, t.TempDir())
	h, _ := s.lookup(o.ID)
	one, two := h.sync, &flusher{root: s.root, dir: h.dir}
	one.turn.Lock()
	two.turn.Lock()
	p := o.Pack(t, 0)
	first := arrive(t, s, p, one)
	h.sync = two
	second := arrive(t, s, p, two)
	one.turn.Unlock()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	h.sync = one
	if _, err := s.Release(group.Release{Group: o.ID, Number: 9, Packs: group.AllPacks}); err != nil {
		t.Fatal(err)
	}
	two.turn.Unlock()
	if err := <-second; !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the second put: %v", err)
	}
	if g, _ := s.Holding(o.ID); g.Held.Count() > 0 {
		t.Error("a shard counts as held that was deleted")
	}
}

// What cannot be removed stays held, and counted, until it can.
func TestRemovalThatFails(t *testing.T) {
	dir := t.TempDir()
	s, o := begun(t, dir)
	p := o.Pack(t, 0)
	if err := s.PutShard(&p.Manifest, p.Word, 1, bytes.NewReader(p.Shards[1])); err != nil {
		t.Fatal(err)
	}
	_, before := s.Room()
	h, _ := s.lookup(o.ID)
	file := filepath.Join(dir, h.file(0))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Rename(file, file+" away"))
	must(os.MkdirAll(filepath.Join(file, "full"), 0o700))
	all := group.Release{Group: o.ID, Number: 9, Packs: group.AllPacks}
	if _, err := s.Release(all); err == nil {
		t.Error("it is called gone")
	}
	if err := s.Drop(o.ID); err == nil {
		t.Error("the group is called gone")
	}
	if _, now := s.Room(); now != before {
		t.Errorf("%d bytes count, %d before", now, before)
	}
	must(os.RemoveAll(file))
	must(os.Rename(file+" away", file))
	if g, err := s.Release(all); err != nil || g.Held.Count() > 0 {
		t.Errorf("%d shards are held, %v", g.Held.Count(), err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
}

// A pack may die, and a group may be dropped, while the folder of a shard that has its
// name already is flushed: it is not taken in.
func TestPackDiesAsItsShardArrives(t *testing.T) {
	for name, c := range map[string]struct {
		ends func(s *Store, o *storetest.Owner) error
		want error
	}{
		"dead": {func(s *Store, o *storetest.Owner) error {
			l, word := o.Lease(5, storetest.Until, storetest.Dead(0))
			_, err := s.Admit(l, word, 1, group.PeerKey{})
			return err
		}, group.ErrInvalid},
		"dropped": {func(s *Store, o *storetest.Owner) error { return s.Drop(o.ID) }, fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, o := begun(t, dir)
			h, _ := s.lookup(o.ID)
			slow := h.sync
			slow.turn.Lock()
			done := arrive(t, s, o.Pack(t, 0), slow)
			h.sync = &flusher{root: s.root, dir: h.dir} // what ends the pack waits for no flush
			if err := c.ends(s, o); err != nil {
				t.Fatal(err)
			}
			slow.turn.Unlock()
			if err := <-done; !errors.Is(err, c.want) {
				t.Errorf("the shard was put: %v", err)
			}
			if g, _ := s.Holding(o.ID); g.Held.Has(0) {
				t.Error("it counts as held")
			}
			if files, _ := filepath.Glob(filepath.Join(dir, "groups", "*", "[0-9]*")); len(files) > 0 {
				t.Errorf("its file is left: %v", files)
			}
		})
	}
}
