package daemon

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"skep/chunker/block"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/secret"
	"skep/cmd/skep/home"
	"skep/net/dht"
	"skep/test/simnet"
)

// What compresses makes channels when it is used first. They belong to a bubble if it
// happens in one, and no other could use them.
func TestMain(m *testing.M) {
	sealed, err := block.NewSealer(secret.Key{}).Seal(link.Raw, make([]byte, 1<<16), nil)
	if err == nil {
		_, err = block.Open(sealed.Link, sealed.Ciphertext, nil)
	}
	if err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// served is a new drive on a swarm of seven on a simulated network, as the daemon
// runs it.
func served(t *testing.T, f func(t *testing.T, s *swarmOfEvenings, h home.Dir, d *opened)) {
	simnet.Simulate(t, 7, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, swarm *simnet.Swarm) {
		s := &swarmOfEvenings{Swarm: swarm, t: t, gone: map[int]bool{}}
		h := home.Dir(filepath.Join(t.TempDir(), "home"))
		var err error
		s.words, err = Init(h, s.settings(0), nil, nil)
		s.must(err)
		f(t, s, h, s.openAgain(h))
	})
}

// openAgain opens a drive with the keys of its home.
func (s *swarmOfEvenings) openAgain(h home.Dir) *opened {
	keys, err := h.Keys(nil)
	s.must(err)
	return s.open(h, keys)
}

// Leases are renewed by the daemon as it runs, of a drive on which nothing changes.
func TestDaemonRenewsLeases(t *testing.T) {
	served(t, func(t *testing.T, s *swarmOfEvenings, h home.Dir, d *opened) {
		s.must(d.put(t.Context(), "dir", "file", make([]byte, 100_000)))
		s.must(d.engine.Sync(t.Context()))
		before := leases(s, d)
		d.stop()
		s.off()
		<-time.After(33 * day)
		s.on()
		d = s.openAgain(h)
		defer d.stop()
		<-time.After(5 * time.Minute)
		for id, number := range leases(s, d) {
			if number <= before[id] {
				t.Errorf("lease %d of group %v was not renewed", number, id)
			}
			for _, p := range s.Peers {
				held, ok := p.Store.Holding(id)
				if ok && time.Until(time.Unix(held.Lease.Until, 0)) < 395*day {
					t.Errorf("a holder's lease of group %v ends at %v", id, time.Unix(held.Lease.Until, 0))
				}
			}
		}
	})
}

// leases are the numbers of the groups' leases.
func leases(s *swarmOfEvenings, d *opened) map[group.ID]uint64 {
	all, err := d.table.Groups()
	s.must(err)
	if len(all) == 0 {
		s.t.Fatal("there is no group")
	}
	out := map[group.ID]uint64{}
	for _, g := range all {
		out[g.ID] = g.Lease
	}
	return out
}

// When an upload has failed, df promises no more than what there is room for on
// this device, although the peers answer; when one has succeeded, theirs.
func TestRoomWhileNothingGoesOut(t *testing.T) {
	served(t, func(t *testing.T, s *swarmOfEvenings, _ home.Dir, d *opened) {
		defer d.stop()
		d.keeper.SetLimit(1 << 30)
		s.must(d.put(t.Context(), "dir", "file", make([]byte, 100_000)))
		s.must(d.engine.Sync(t.Context()))
		<-time.After(time.Second) // the new limit is taken
		if _, free := d.capacity(); free < 2<<30 {
			t.Errorf("%d bytes are free at seven peers that offer a GiB each", free)
		}
		s.off()
		s.must(d.put(t.Context(), "dir", "other", []byte("content")))
		if d.engine.Sync(t.Context()) == nil {
			t.Fatal("a commit was out while nobody was there")
		}
		if !d.sink.room().Takes {
			t.Fatal("no peer is thought to be there")
		}
		if _, free := d.capacity(); free <= 0 || free > 1<<30 {
			t.Errorf("%d bytes are free while nothing goes out, with 1 GiB of cache", free)
		}
		s.on()
		<-time.After(time.Minute) // who could not be dialled is not dialled again at once
		d.net.survey.Round(t.Context())
		s.must(d.engine.Sync(t.Context()))
		if _, free := d.capacity(); free < 2<<30 {
			t.Errorf("%d bytes are free when things go out again", free)
		}
	})
}
