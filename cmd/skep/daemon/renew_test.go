package daemon

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"skep/chunker/commit"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/chunker/link"
	"skep/chunker/secret"
	"skep/chunker/words"
	"skep/cmd/skep/home"
	"skep/net/client"
	"skep/net/peers"
	"skep/net/swarm"
	"skep/net/wire"
)

// keepers keep records as the real ones do: 800 days at most, the one that
// counts most.
type keepers struct {
	mu   sync.Mutex // guards kept
	kept map[group.PeerKey]map[group.SlotKey]keptRecord
	away map[group.PeerKey]bool
	hook func(word []byte) // before a record is put
	puts int
	slow time.Duration // before each answer
	// Whether records are not taken now; nil: they are.
	refuses func() bool
	asks    int // under way
	most    int // that were at once
}

type keptRecord struct {
	word []byte
	rec  group.SlotRecord
	came time.Time
}

func (k *keepers) PutRecord(_ context.Context, p group.PeerKey, word []byte) error {
	r, err := group.ParseSlotRecord(word)
	if err != nil {
		return err
	}
	if k.hook != nil {
		k.hook(word)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away[p] || k.refuses != nil && k.refuses() {
		return client.ErrUnreachable
	}
	k.puts++
	if k.kept[p] == nil {
		k.kept[p] = map[group.SlotKey]keptRecord{}
	}
	if old, ok := k.kept[p][r.Key()]; ok && !r.Replaces(&old.rec) && !bytes.Equal(word, old.word) {
		return client.ErrRefused
	}
	k.kept[p][r.Key()] = keptRecord{word, r, time.Now()}
	return nil
}

func (k *keepers) GetRecord(_ context.Context, p group.PeerKey, key group.SlotKey) (group.SlotRecord, []byte, error) {
	k.mu.Lock()
	k.asks++
	k.most = max(k.most, k.asks)
	k.mu.Unlock()
	time.Sleep(k.slow)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asks--
	if k.away[p] {
		return group.SlotRecord{}, nil, client.ErrUnreachable
	}
	r, ok := k.kept[p][key]
	if !ok || time.Now().Unix() >= r.rec.Until || time.Since(r.came) >= 800*24*time.Hour {
		return group.SlotRecord{}, nil, client.ErrAbsent
	}
	return r.rec, r.word, nil
}

// resting is a drive with one commit, which another device has made that is
// gone, on a device with eight peers. It is for bubbles.
func resting(t *testing.T) (*drive, words.Entropy) {
	entropy := words.New()
	keys := keyring.Local{Device: secret.New(), Root: secret.New()}
	gone := keyring.Local{Device: secret.New(), Root: keys.Root}
	own := keyring.NewDrive("drive")
	d := &drive{id: own.ID, keys: keys, prefix: 2, epoch: own.Newest(), home: home.Dir(t.TempDir()), log: discard(), publishing: semaphore.NewWeighted(1), announced: make(chan struct{}),
		began: map[group.PeerKey]int64{deviceKey(gone): time.Now().Unix(), deviceKey(keys): time.Now().Unix()}}
	d.setRing(keyring.Keyring{Number: 2}.WithDrive(own).WithDevice(certify(gone, 1)).WithDevice(certify(keys, 2)))
	var err error
	d.recover.Recovery, err = keyring.SealRecovery(entropy.Key(), keyring.Recovery{Root: keys.Root}, 1, time.Now().Add(recoveryTime).Unix())
	if err != nil {
		t.Fatal(err)
	}
	head := commit.Head{Drive: own.ID, Device: deviceKey(gone), Number: 7, Time: 1, Commit: commit.Locator{Group: group.ID{1},
		Class: 20, Coding: erasure.NewCoding(2, 3), Length: 100, Link: link.Link{Codec: link.CBOR, Hash: link.Hash{1}, Key: secret.Key{1}}}}
	d.knows(head)
	known := peers.New(peers.Options{})
	for i := range 8 {
		known.Said(group.PeerKey{byte(i + 1)}, wire.Hello{Offered: 1 << 30, Free: 1 << 30})
	}
	d.net = &network{self: deviceKey(keys), peers: known, swarm: swarm.New(swarm.Config{}),
		records: &swarm.Records{Keepers: &keepers{kept: map[group.PeerKey]map[group.SlotKey]keptRecord{}, away: map[group.PeerKey]bool{}}, Peers: known}}
	return d, entropy
}

// setRing gives a drive a keyring that nobody else knows.
func (d *drive) setRing(k keyring.Keyring) {
	d.ring = k
	d.shared.Store(&k)
}

// knows makes a head that of the newest commit that a drive knows.
func (d *drive) knows(h commit.Head) {
	c := commit.Commit{Device: h.Device, Number: h.Number}
	if d.commits != nil {
		before, _ := d.commits()
		c.Follows = before.newest.FollowedBy(h.Device)
	}
	d.commits = func() (commits, error) { return commits{newest: &c, head: h}, nil }
}

// findAll follows the words to the newest head.
func (d *drive) findAll(ctx context.Context, entropy words.Entropy) (foundDrive, error) {
	f, err := d.net.findDrive(ctx, entropy)
	if err != nil {
		return f, err
	}
	return f, d.net.findHead(ctx, &f)
}

// For three years nothing changes on a drive, and its device is there: a year
// after it went, the words still lead to the newest commit, though another
// device made that.
func TestRecordsOutliveAYearAfterTheDeviceRested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, entropy := resting(t)
		ctx, cancel := context.WithCancel(t.Context())
		var service sync.WaitGroup
		service.Go(func() { _ = d.keepFindable(ctx) })
		<-time.After(3 * 365 * 24 * time.Hour)
		cancel()
		service.Wait()
		<-time.After(366 * 24 * time.Hour)
		found, err := d.findAll(t.Context(), entropy)
		if err != nil || found.empty || found.head.Number != 7 || found.drive.ID != d.id {
			t.Errorf("a year later: %v, head %d", err, found.head.Number)
		}
		puts := d.net.records.Keepers.(*keepers).puts
		if weeks := 3 * 365 / 7; puts > 3*5*2*(weeks+2) {
			t.Errorf("%d records were brought in %d weeks", puts, weeks)
		}
		<-time.After(60 * 24 * time.Hour)
		if found, err := d.findAll(t.Context(), entropy); err == nil && !found.empty {
			t.Error("records are there for ever")
		}
	})
}

// hungDirectory answers nothing.
type hungDirectory struct{}

func (hungDirectory) PutRecord(ctx context.Context, _ []byte) error {
	<-ctx.Done()
	return ctx.Err()
}

func (hungDirectory) GetRecord(ctx context.Context, _ group.SlotKey) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// Records that keepers have are out, also if the directory answers nothing: some peer of it
// that is silent is enough for that.
func TestRecordsAreOutWithoutTheDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := resting(t)
		d.net.records.Directory = hungDirectory{}
		defer d.net.records.Close()
		begin := time.Now()
		if err := d.bringRecords(t.Context(), true); err != nil || time.Since(begin) > 3*silentFor {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		begin = time.Now()
		if err := d.publishNewestHead(t.Context()); err != nil || time.Since(begin) > 2*time.Second {
			t.Errorf("the head: %v after %v", err, time.Since(begin))
		}
	})
}

// Heads of many devices and epochs are looked for at once, but not all of them:
// a head that is not there is waited for.
func TestHeadsAreLookedForAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, entropy := resting(t)
		own, _ := d.ring.Drive(d.id)
		for n := range keyring.MaxDevices - 2 {
			if n < 5 {
				own = own.NextEpoch()
			}
			d.ring = d.ring.WithDevice(certify(keyring.Local{Device: secret.New(), Root: d.keys.Root}, uint32(n+3)))
		}
		d.setRing(d.ring.WithDrive(own))
		if err := errors.Join(d.publishRecovery(t.Context()), d.publishNewestHead(t.Context())); err != nil {
			t.Fatal(err)
		}
		k := d.net.records.Keepers.(*keepers)
		k.slow = time.Second
		begin := time.Now()
		found, err := d.findAll(t.Context(), entropy)
		if err != nil || found.empty || found.head.Number != 7 {
			t.Fatalf("%v, head %d", err, found.head.Number)
		}
		const heads, slots, peers = keyring.MaxDevices, 5, 8
		rounds := (heads + headsAtOnce - 1) / headsAtOnce
		if took := time.Since(begin); took != time.Duration(2+rounds)*time.Second { // after the two records
			t.Errorf("%d heads took %v", heads, took)
		}
		if k.most != headsAtOnce*slots*peers {
			t.Errorf("%d questions were under way at once", k.most)
		}
	})
}

// A sync that waits for the recovery record brings it while the daemon does so by
// itself: run with -race.
func TestRecoveryIsPublishedByTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := resting(t)
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				if err := d.publishRecovery(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if kept, err := loadRecovery(d.home); err != nil || len(kept.Keyring) == 0 {
			t.Errorf("it is not noted that keepers have the recovery record: %v", err)
		}
	})
}

// Leases are renewed every hour; soon again while there are more; not at all
// while nobody is there; and also after it failed.
func TestLeasesAreRenewedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var there atomic.Bool
		answers := []struct {
			n   int
			err error
		}{{16, nil}, {3, errors.New("one holder did not answer")}, {0, nil}, {0, errors.New("disk full")}, {0, nil}}
		var calls []time.Duration
		renew := func(context.Context) (int, error) {
			a := answers[len(calls)]
			calls = append(calls, time.Since(begin))
			return a.n, a.err
		}
		ctx, cancel := context.WithCancel(t.Context())
		var service sync.WaitGroup
		service.Go(func() {
			if err := renewing(ctx, there.Load, renew, discard()); err != nil {
				t.Error(err)
			}
		})
		<-time.After(150 * time.Minute) // it looked after 1, 61 and 121
		there.Store(true)
		<-time.After(200*time.Minute + time.Second)
		cancel()
		service.Wait()
		want := []time.Duration{181 * time.Minute, 182 * time.Minute, 183 * time.Minute, 243 * time.Minute, 303 * time.Minute}
		if !slices.Equal(calls, want) {
			t.Errorf("leases were renewed after %v, want %v", calls, want)
		}
	})
}

// A device that was set back brings recovery record and keyring to keepers, and no head, once:
// it does not try that again and again.
func TestRecordsOfADeviceThatWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := out(t)
		d.keptWith.Store(0)
		d.setBack.Store(&setBackError{})
		if err := d.bringRecords(t.Context(), false); err != nil || d.swarmGrew() {
			t.Errorf("it ends with %v, and would begin anew: %v", err, d.swarmGrew())
		}
	})
}
