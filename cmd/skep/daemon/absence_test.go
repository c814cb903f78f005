package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"skep/cache/hosted"
	"skep/cache/tree"
	"skep/chunker/keyring"
	"skep/chunker/secret"
	"skep/chunker/words"
	"skep/cmd/skep/home"
	"skep/net/dht"
	"skep/net/holder"
	"skep/test/simnet"
)

const (
	hour = time.Hour
	day  = 24 * hour
)

// absence is how long the device is silent, how often the holders are there, and
// for how long each time. Their memory of the directory is shorter than what
// passes in between. At length they are there all of the time, but for restarts.
func absence() (days int, every, there time.Duration) {
	if os.Getenv("SKEP_SOAK") != "" {
		return 365, day, day - hour
	}
	return 90, 3 * day, hour
}

// swarmOfEvenings is holders on a simulated network that are switched on for some
// time every few days, one after the other, and keep what they hold on a disk.
type swarmOfEvenings struct {
	*simnet.Swarm
	t     *testing.T
	gone  map[int]bool // for good
	words words.Entropy
}

// on starts all that are left; one that runs leads the next ones in.
func (s *swarmOfEvenings) on() {
	var through []*simnet.Peer
	for i := range s.Peers {
		if !s.gone[i] {
			through = []*simnet.Peer{s.Restart(s.t, i, through...)}
		}
	}
}

func (s *swarmOfEvenings) off() {
	for _, p := range s.Peers {
		p.Stop()
	}
}

// pass lets time go by, with connections that do not last.
func (s *swarmOfEvenings) pass(d time.Duration) {
	for ; d > 0; d -= 30 * time.Minute {
		<-time.After(min(d, 30*time.Minute))
		s.Hangup()
	}
}

// settings are those of a home that joins by one of the peers.
func (s *swarmOfEvenings) settings(peer int) home.Settings {
	return home.Settings{Bootstrap: s.Peers[peer].Addrs()}
}

// opened is a drive that is served in a bubble as the daemon does it.
type opened struct {
	*drive
	stop func()
}

func (s *swarmOfEvenings) open(h home.Dir, keys keyring.Local) *opened {
	s.t.Helper()
	set, err := h.Settings()
	s.must(err)
	n := s.guest(h, set, keys)
	d, err := openDrive(s.t.Context(), h, set, keys, n, discard())
	s.must(err)
	s.must(n.join(s.t.Context()))
	return s.serve(d)
}

// guest is a device as a peer on the simulated network.
func (s *swarmOfEvenings) guest(h home.Dir, set home.Settings, keys keyring.Local) *network {
	s.t.Helper()
	on := s.Guest(s.t)
	on.Key = keys.Signer()
	n, err := newNetworkOn(h, set, on, discard())
	s.must(err)
	return n
}

// serve runs an open drive.
func (s *swarmOfEvenings) serve(d *drive) *opened {
	ctx, cancel := context.WithCancel(s.t.Context())
	var services sync.WaitGroup
	for _, one := range append(d.net.services(), d.services()...) {
		services.Go(func() {
			if err := one.run(ctx); err != nil && ctx.Err() == nil {
				s.t.Errorf("%s: %v", one.name, err)
			}
		})
	}
	return &opened{d, func() {
		cancel()
		services.Wait()
		d.close()
		d.net.close()
		<-time.After(time.Minute) // for what leveldb has left running
	}}
}

func (s *swarmOfEvenings) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// put writes a file in a directory of the root.
func (o *opened) put(ctx context.Context, dir, name string, content []byte) error {
	in, err := o.tree.Find(ctx, dir)
	if err != nil {
		if in, err = o.tree.Mkdir(ctx, tree.Root, dir, 0o755, tree.Owner{}); err != nil {
			return err
		}
	}
	f, _, err := o.tree.Create(ctx, in.Ino, name, 0o644, os.O_WRONLY, tree.Owner{})
	if err != nil {
		return err
	}
	defer f.Release()
	_, err = f.WriteAt(ctx, content, 0, false)
	return err
}

// awaitAll returns when each shard of each pack is with its holder.
func (o *opened) awaitAll(t *testing.T) {
	t.Helper()
	missing := func() (n int) {
		all, err := account{o.drive}.Groups()
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range all {
			for _, held := range g.Held {
				lacks := g.Wanted.Without(held)
				n += lacks.Count()
			}
		}
		return n
	}
	for range 60 {
		if missing() == 0 {
			return
		}
		<-time.After(time.Second)
	}
	t.Fatalf("%d shards are not with their holders", missing())
}

// read returns all files, by their paths.
func (o *opened) read(ctx context.Context, dir tree.Ino, path string, out map[string][]byte) error {
	var entries []tree.DirEntry
	err := o.tree.ReadDir(ctx, dir, 0, func(e tree.DirEntry) bool { entries = append(entries, e); return true })
	for _, e := range entries {
		at := filepath.Join(path, e.Name)
		if err == nil && e.Attr.Mode&0o170000 == 0o040000 {
			err = o.read(ctx, e.Attr.Ino, at, out)
		} else if err == nil {
			out[at], err = o.content(ctx, e.Attr)
		}
	}
	return err
}

func (o *opened) content(ctx context.Context, a tree.Attr) ([]byte, error) {
	f, err := o.tree.Open(ctx, a.Ino, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	b := make([]byte, a.Size)
	for at := 0; at < len(b); {
		n, err := f.ReadAt(ctx, b[at:], int64(at))
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		at += n
	}
	return b, nil
}

// leave makes a drive with these files and a commit that is out, and takes the
// device away for good.
func (s *swarmOfEvenings) leave(files map[string][]byte) words.Entropy {
	s.t.Helper()
	ctx, h := s.t.Context(), home.Dir(filepath.Join(s.t.TempDir(), "first"))
	entropy, err := Init(h, s.settings(2), nil, nil)
	s.must(err)
	keys, err := h.Keys(nil)
	s.must(err)
	d := s.open(h, keys)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		s.must(d.put(ctx, filepath.Dir(name), filepath.Base(name), files[name]))
	}
	s.must(d.engine.Sync(ctx))
	s.must(d.publishRecovery(ctx))
	d.awaitAll(s.t)
	d.stop()
	s.must(os.RemoveAll(string(h)))
	return entropy
}

// inDirectory tells how many copies of the recovery record the directory alone
// leads to: in a larger swarm, nobody asks each peer.
func (s *swarmOfEvenings) inDirectory(entropy words.Entropy, by int) (n int) {
	for _, key := range slotKeys(keyring.RecoverySlots(entropy.Key())) {
		if _, err := s.Peers[by].DHT.GetRecord(s.t.Context(), key); err == nil {
			n++
		}
	}
	return n
}

// comeBack recovers the drive on a bare device, by the address of one peer, and
// reads all of it.
func (s *swarmOfEvenings) comeBack(entropy words.Entropy, by int, want map[string][]byte) {
	s.t.Helper()
	ctx, begin := s.t.Context(), time.Now()
	d := s.recovered(entropy, by)
	defer d.stop()
	got := map[string][]byte{}
	s.must(d.read(ctx, tree.Root, "", got))
	s.t.Logf("recovered and read in %v of simulated time", time.Since(begin))
	if !maps.EqualFunc(got, want, bytes.Equal) {
		for name := range want {
			s.t.Errorf("%s: %d bytes, of %d, or others", name, len(got[name]), len(want[name]))
		}
	}
}

// recovered is the drive on a bare device that knows the words and one peer.
func (s *swarmOfEvenings) recovered(entropy words.Entropy, by int) *opened {
	s.t.Helper()
	h := home.Dir(filepath.Join(s.t.TempDir(), "recovered"))
	keys := keyring.Local{Device: secret.New()}
	release, err := BeginHome(h, 0)
	s.must(err)
	defer release()
	n := s.guest(h, s.settings(by), keys)
	_, err = n.recover(s.t.Context(), s.settings(by), keys, entropy, nil, func(string) {})
	n.close()
	s.must(err)
	return s.openAgain(h)
}

// From words to files, ninety days after the only device of a drive was seen
// last. Its holders were switched off and on meanwhile, some went with their
// disks, and others came; the one by whom the new device joins never met the old
// one.
//
// Where shards and records go is drawn anew in each run. No draw loses a pack: with
// seven peers, each has three shards more than it needs, and two disks break. A
// record is lost if both keepers of each of its five slots are the two that break: of
// 21 pairs one, five times, which is one run in four million.
func TestWordsLeadToFilesAfterNinetyDays(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates ninety days")
	}
	days, every, there := absence()
	disks := t.TempDir()
	c := simnet.Config{DHT: dht.Config{Refresh: -1}, Store: func(i int) holder.Store {
		s, err := hosted.Open(filepath.Join(disks, fmt.Sprint(i)), 1<<30)
		if err != nil {
			panic(err)
		}
		return s
	}}
	simnet.Simulate(t, 7, c, simnet.Link{}, func(t *testing.T, swarm *simnet.Swarm) {
		s := &swarmOfEvenings{Swarm: swarm, t: t, gone: map[int]bool{}}
		r := rand.NewChaCha8([32]byte{3})
		want := map[string][]byte{"letters/short": []byte("a few words"), "letters/empty": {}}
		for name, n := range map[string]int{"pictures/one": 300_000, "pictures/two": 2_500_001} {
			want[name] = make([]byte, n)
			_, _ = r.Read(want[name])
		}
		entropy := s.leave(want)
		for begin, evening := time.Now(), 0; time.Since(begin) < time.Duration(days)*day; evening++ {
			s.off()
			<-time.After(every - there)
			breaks := evening == days/9 || evening == days/5
			if breaks { // somebody's disk does, and somebody new comes
				s.gone[len(s.gone)] = true
			}
			s.on()
			if breaks {
				s.Add(t, s.Peers[len(s.gone)])
			}
			s.pass(there)
		}
		newest := len(s.Peers) - 1
		if n := s.inDirectory(entropy, newest); n == 0 {
			t.Error("the directory has no copy of the recovery record")
		}
		s.comeBack(entropy, newest, want)
	})
}
