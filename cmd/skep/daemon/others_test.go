package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"skep/chunker/commit"
	"skep/chunker/devices"
	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/chunker/secret"
	"skep/cmd/skep/home"
	"skep/net/client"
	"skep/net/peers"
	"skep/net/swarm"
	"skep/net/wire"
)

// out is a resting drive whose records are with keepers.
func out(t *testing.T) *drive {
	t.Helper()
	d, _ := resting(t)
	if err := errors.Join(d.publishRecovery(t.Context()), d.publishNewestHead(t.Context())); err != nil {
		t.Fatal(err)
	}
	return d
}

// next is the head of a commit that a device makes.
func (d *drive) next(device group.PeerKey, number uint64, place byte) commit.Head {
	c, _ := d.commits()
	h := c.head
	h.Device, h.Number = device, number
	h.Commit.Link.Hash[0] = place
	return h
}

// publishAs brings a head to keepers as its device does.
func (d *drive) publishAs(t *testing.T, h commit.Head) {
	t.Helper()
	d.put(t, d.headOf(h.Device), h.Number, h.Encode())
}

func (d *drive) headOf(device group.PeerKey) []keyring.Slot {
	return keyring.HeadSlots(d.keys.Root, d.id, device, d.epoch)
}

func (d *drive) put(t *testing.T, head []keyring.Slot, number uint64, value []byte) {
	t.Helper()
	words, err := keyring.SealHead(head, number, time.Now().Add(headTime).Unix(), value)
	if err == nil {
		_, err = d.net.records.Put(t.Context(), words)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// joins puts another device into the keyring that keepers have.
func (d *drive) joins(t *testing.T) group.PeerKey {
	t.Helper()
	other := keyring.Local{Device: secret.New(), Root: d.keys.Root}
	d.certifies(t, other, time.Now())
	return deviceKey(other)
}

// certifies puts one into it by the certificate of a certain time.
func (d *drive) certifies(t *testing.T, other keyring.Local, created time.Time) {
	t.Helper()
	ring := d.shared.Load().WithDevice(certifyAt(other, 9, created.Unix()))
	ring.Number++
	if _, err := d.net.shareRing(t.Context(), d.keys.Root, ring); err != nil {
		t.Fatal(err)
	}
}

func (d *drive) keepers() *keepers { return d.net.records.Keepers.(*keepers) }

// loses has the keepers of so many slots of a device's head lose their copies.
func (d *drive) loses(device group.PeerKey, slots int) {
	d.loseCopies(slotKeys(d.headOf(device))[:slots])
}

// loseCopies has all keepers lose what is in some slots.
func (d *drive) loseCopies(slots []group.SlotKey) {
	k := d.keepers()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range slots {
		for _, kept := range k.kept {
			delete(kept, key)
		}
	}
}

// expect looks around, and compares what that gives with a kind of error: "" for none,
// "others", "back", or "unsure".
func (d *drive) expect(t *testing.T, want, when string) {
	t.Helper()
	err := d.look(t.Context())
	var others *devices.OthersError
	var back *devices.SetBackError
	got := ""
	switch {
	case errors.As(err, &back):
		got = "back"
	case errors.As(err, &others):
		got = "others"
	case err != nil:
		got = "unsure"
	}
	if got != want {
		t.Errorf("%s: %q (%v), want %q", when, got, err, want)
	}
}

// A device that took another one's place is alone; not before keepers have said so,
// nor when they have commits that it does not follow.
func TestAlone(t *testing.T) {
	gone := func(d *drive) group.PeerKey { c, _ := d.commits(); return c.head.Device }
	for name, c := range map[string]struct {
		happens func(t *testing.T, d *drive)
		want    string
	}{
		"nothing more":                 {func(*testing.T, *drive) {}, ""},
		"the other one's head is lost": {func(_ *testing.T, d *drive) { d.loses(gone(d), 5) }, ""},
		"most copies of it are":        {func(_ *testing.T, d *drive) { d.loses(gone(d), 3) }, "unsure"},
		"the other one goes on":        {func(t *testing.T, d *drive) { d.publishAs(t, d.next(gone(d), 8, 1)) }, "others"},
		"it had, and keepers have an earlier one": {func(t *testing.T, d *drive) {
			d.publishAs(t, d.next(gone(d), 8, 1))
			_ = d.look(t.Context())
			d.loses(gone(d), 5)
			if err := d.publishNewestHead(t.Context()); err != nil {
				t.Fatal(err)
			}
		}, "others"},
		"most copies of this one's are": {func(t *testing.T, d *drive) {
			h := d.next(d.net.self, 8, 1)
			d.publishAs(t, h)
			d.knows(h)
			d.loses(d.net.self, 3)
		}, "unsure"},
		"this one goes on":              {func(t *testing.T, d *drive) { h := d.next(d.net.self, 8, 1); d.publishAs(t, h); d.knows(h) }, ""},
		"it does, and its head is lost": {func(_ *testing.T, d *drive) { d.knows(d.next(d.net.self, 8, 1)) }, "unsure"},
		"this one is set back":          {func(t *testing.T, d *drive) { d.publishAs(t, d.next(d.net.self, 12, 1)) }, "back"},
		"by one commit":                 {func(t *testing.T, d *drive) { d.publishAs(t, d.next(d.net.self, 8, 1)) }, "back"},
		"by one, and made another of that number": {func(t *testing.T, d *drive) {
			d.publishAs(t, d.next(d.net.self, 8, 1))
			d.knows(d.next(d.net.self, 8, 2))
		}, "back"},
		"a third one joined":                 {func(t *testing.T, d *drive) { d.joins(t) }, "others"},
		"it went on from where this one was": {func(t *testing.T, d *drive) { d.publishAs(t, d.next(d.joins(t), 8, 1)) }, "others"},
		"it had gone on from an earlier commit, and was not followed": {func(t *testing.T, d *drive) {
			third := d.joins(t)
			d.began[third] = time.Now().Unix()
			d.publishAs(t, d.next(third, 5, 1))
		}, "others"},
		"it joined long ago, and says nothing": {func(t *testing.T, d *drive) { d.joins(t); d.days(t, 61, func() {}) }, ""},
		"and the clock here jumps":             {func(t *testing.T, d *drive) { d.joins(t); _ = d.look(t.Context()); time.Sleep(61 * day) }, "others"},
		"it joined long ago, and is forgotten": {func(t *testing.T, d *drive) { d.joins(t); d.days(t, 61, func() {}); d.presence = devices.Presence{} }, "others"},
		"most peers are away": {func(_ *testing.T, d *drive) {
			for i := range 6 {
				d.keepers().away[group.PeerKey{byte(i + 1)}] = true
			}
		}, "unsure"},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := out(t)
			c.happens(t, d)
			d.expect(t, c.want, name)
		})
	}
}

// A device brings its head to keepers again as soon as a look finds that few have it,
// also while it is not alone.
func TestOwnHeadIsBroughtAgain(t *testing.T) {
	for _, alone := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := out(t)
			d.lookEvery = time.Hour
			h := d.next(d.net.self, 8, 1)
			d.publishAs(t, h)
			d.knows(h)
			if !alone {
				d.joins(t)
			}
			d.loses(d.net.self, 4)
			d.lookOnce(t.Context(), 0)
			slots := keyring.HeadSlots(d.keys.Root, d.id, d.net.self, d.epoch)
			if n, _ := d.net.records.Get(t.Context(), slotKeys(slots)).Spread(8); n != keyring.Slots {
				t.Errorf("alone %v: it lies in %d slots", alone, n)
			}
		})
	}
}

// Who waits hears that keepers have lost the head, and do not take it again.
func TestOwnHeadThatNobodyTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := out(t)
		h := d.next(d.net.self, 8, 1)
		d.publishAs(t, h)
		d.knows(h)
		if err := d.heed(t.Context(), d.look(t.Context())); err != nil {
			t.Fatal(err)
		}
		d.loses(d.net.self, keyring.Slots)
		d.keepers().refuses = func() bool { return true }
		if err := d.heed(t.Context(), d.look(t.Context())); !errors.Is(err, swarm.ErrNotKept) {
			t.Errorf("while nobody takes it: %v", err)
		}
		d.keepers().refuses = nil
		if err := d.heed(t.Context(), d.look(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

// A look finds that most copies of the recovery record are gone, as when their keepers
// are: until it is with keepers again, nothing is called safe.
func TestRecoveryRecordIsBroughtAgain(t *testing.T) {
	for lost, again := range []bool{false, false, false, true, true, true} {
		synctest.Test(t, func(t *testing.T) {
			d, entropy := resting(t)
			if err := errors.Join(d.publishRecovery(t.Context()), d.publishNewestHead(t.Context())); err != nil {
				t.Fatal(err)
			}
			d.lookEvery = time.Hour
			other := d.joins(t) // which this one is not alone with
			d.began[other] = time.Now().Unix()
			d.publishAs(t, d.next(other, 5, 1))
			d.lookOnce(t.Context(), 0)
			slots := slotKeys(keyring.RecoverySlots(entropy.Key()))
			d.loseCopies(slots[:lost])
			d.keepers().refuses = func() bool { return true }
			d.lookOnce(t.Context(), 0)
			if d.recoveryOut.Load() == again {
				t.Errorf("of 5 copies %d are lost, keepers take none: out %v", lost, !again)
			}
			d.keepers().refuses = nil
			d.lookOnce(t.Context(), 0)
			left := keyring.Slots - lost
			if again {
				left = keyring.Slots
			}
			if n, _ := d.net.records.Get(t.Context(), slots).Spread(0); n != left || !d.recoveryOut.Load() {
				t.Errorf("of 5 copies %d were lost, %d are there, out %v", lost, n, d.recoveryOut.Load())
			}
		})
	}
}

// When another device has joined, holders are asked anew, once: while this one was away, that
// one may have given up what is here, and must not be let go of then.
func TestHoldersAreAskedAnewWhenADeviceJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, times := out(t), 0
		d.presume = func() { times++ }
		d.expect(t, "", "nobody has joined")
		if times != 0 {
			t.Error("holders are asked anew for nobody")
		}
		d.joins(t)
		for range 3 {
			d.expect(t, "others", "a device joined")
		}
		if times != 1 {
			t.Errorf("they were asked anew %d times", times)
		}
		found := []devices.Found{{Device: keyring.Device{Key: group.PeerKey{77}}}}
		d.keepers().refuses = func() bool { return true } // so that it is not noted that it has joined
		for range 3 {
			if _, err := d.sees(t.Context(), found, time.Now()); err == nil {
				t.Error("it was noted")
			}
		}
		if times != 2 {
			t.Errorf("for another one, they were asked anew %d times", times-1)
		}
	})
}

// While one of two peers takes no records, the other has all copies of the recovery record:
// it is out, though it is tried again to bring it to both.
func TestRecoveryRecordWithOneOfTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := resting(t)
		d.net.peers = peers.New(peers.Options{})
		for i := range 2 {
			d.net.peers.Said(group.PeerKey{byte(i + 1)}, wire.Hello{Offered: 1 << 30, Free: 1 << 30})
		}
		d.net.records.Peers = d.net.peers
		d.keepers().away[group.PeerKey{1}] = true
		if err := d.publishRecovery(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.keepers().away[group.PeerKey{1}] = false
		tried := 0
		d.keepers().refuses = func() bool { // all that it already has, and what the other shall have
			tried++
			if !d.recoveryOut.Load() {
				t.Error("it is said not to be out")
			}
			return false
		}
		if err := d.lookForRecovery(t.Context()); err != nil || tried == 0 {
			t.Errorf("tried %d times, %v", tried, err)
		}
	})
}

// days lets days go by, with a look on each.
func (d *drive) days(t *testing.T, n int, each func()) {
	t.Helper()
	for range n {
		each()
		_ = d.look(t.Context())
		time.Sleep(day)
	}
}

// What others do counts, whatever their clocks say.
func TestOthersWithOtherClocks(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"behind": -61 * day, "ahead": 61 * day} {
		synctest.Test(t, func(t *testing.T) {
			d := out(t)
			other := keyring.Local{Device: secret.New(), Root: d.keys.Root}
			d.certifies(t, other, time.Now().Add(ahead))
			d.expect(t, "others", "a device joined a moment ago, its clock is "+name)
			number := uint64(8)
			d.days(t, 70, func() {
				d.publishAs(t, d.next(deviceKey(other), number, byte(number)))
				number++
			})
			d.expect(t, "others", "it published a commit yesterday, its clock is "+name)
			d.days(t, 61, func() {})
			d.expect(t, "", "it published nothing for sixty days, its clock is "+name)
		})
	}
}

// A device that is there, and has nothing to write, counts: for one that it knew nothing
// of, and for one that took its place. When it is not there any more, it counts for a
// while.
func TestOthersThatOnlyRead(t *testing.T) {
	for name, c := range map[string]struct {
		ahead        time.Duration // of the clock that certified it first
		tookItsPlace bool
	}{"joined": {}, "joined while its clock was ahead": {ahead: 100 * day}, "was there before": {tookItsPlace: true}} {
		synctest.Test(t, func(t *testing.T) {
			d := out(t)
			other := keyring.Local{Device: secret.New(), Root: d.keys.Root}
			created := time.Now().Add(c.ahead)
			d.certifies(t, other, created)
			if c.tookItsPlace {
				d.began[deviceKey(other)] = created.Unix()
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { _ = d.as(t, other).keepFindable(ctx) }()
			d.days(t, 70, func() {})
			d.expect(t, "others", "it "+name)
			cancel()
			d.days(t, 61, func() {})
			d.expect(t, "", "it "+name+", and went")
		})
	}
}

// A device that was there before shows that it still is to one that took its place, as soon
// as it looks; once. So does one that was set back: it reads what it has.
func TestOthersShowThemselvesToWhoJoins(t *testing.T) {
	for _, finds := range []string{"others", "back"} {
		synctest.Test(t, func(t *testing.T) {
			d := out(t)
			other := keyring.Local{Device: secret.New(), Root: d.keys.Root}
			d.certifies(t, other, time.Now())
			d.began[deviceKey(other)] = time.Now().Unix()
			if finds == "back" {
				d.publishFollowed(t, d.next(deviceKey(other), 3, 1))
			}
			d.expect(t, "", "it took the place of another one")
			was := d.as(t, other) // which knows of no commit
			was.began = map[group.PeerKey]int64{deviceKey(other): time.Now().Unix()}
			time.Sleep(hour)
			for range 3 {
				was.expect(t, finds, "it was there before, and looks")
				d.expect(t, "others", "the other one is there")
				time.Sleep(hour)
			}
			created := map[group.PeerKey]int64{}
			for _, dev := range d.shared.Load().Known(d.keys.Root) {
				created[dev.Key] = dev.Created
			}
			if got := time.Since(time.Unix(created[deviceKey(other)], 0)); got != 3*hour {
				t.Errorf("it was certified anew %v ago", got)
			}
			if created[d.net.self] != d.began[d.net.self] {
				t.Error("the one that joined was certified anew")
			}
		})
	}
}

// publishFollowed brings a head to keepers as its device does, which the newest commit here
// follows.
func (d *drive) publishFollowed(t *testing.T, h commit.Head) {
	t.Helper()
	d.publishAs(t, h)
	c, _ := d.commits()
	d.knows(h)
	d.knows(c.head)
}

// It does so, too, if keepers did not take that when it looked first, and its daemon has
// ended since.
func TestOthersShowThemselvesInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := out(t)
		other := keyring.Local{Device: secret.New(), Root: d.keys.Root}
		d.certifies(t, other, time.Now())
		d.began[deviceKey(other)] = time.Now().Unix()
		was := d.as(t, other)
		was.began = map[group.PeerKey]int64{deviceKey(other): time.Now().Unix()}
		time.Sleep(hour)
		d.keepers().refuses = func() bool { return true }
		was.expect(t, "unsure", "keepers take nothing")
		d.keepers().refuses = nil
		seen, err := loadPresence(was.home)
		if err != nil {
			t.Fatal(err)
		}
		again := d.as(t, other)
		again.home, again.began, again.presence = was.home, was.began, seen
		again.expect(t, "others", "it was there before, and looks again")
		d.expect(t, "others", "the other one is there")
	})
}

// as is the same drive on another device that has no commit of its own.
func (d *drive) as(t *testing.T, keys keyring.Local) *drive {
	n := &network{self: deviceKey(keys), peers: d.net.peers, swarm: d.net.swarm, records: d.net.records}
	other := &drive{id: d.id, keys: keys, prefix: 9, epoch: d.epoch, home: home.Dir(t.TempDir()), log: discard(), net: n, recover: d.recover,
		publishing: semaphore.NewWeighted(1), announced: make(chan struct{}), commits: func() (commits, error) { return commits{}, nil }}
	ring, _, err := d.net.readRing(t.Context(), d.keys.Root, 0)
	if err != nil {
		t.Fatal(err)
	}
	other.setRing(ring)
	return other
}

// What was seen of others outlives the daemon, and if it is damaged is begun anew.
func TestPresenceIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := out(t)
		third := d.joins(t)
		d.days(t, 20, func() {})
		kept, err := loadPresence(d.home)
		if got, known := kept.Of(third); err != nil || !known || got.Silent != int64(19*day/time.Second) {
			t.Errorf("%v, %+v", err, kept)
		}
		if err := d.home.WriteFile(presenceFile, []byte("what is no record")); err != nil {
			t.Fatal(err)
		}
		if kept, err := loadPresence(d.home); err != nil || kept.Looked != 0 || kept.Devices != nil {
			t.Errorf("%v, %+v", err, kept)
		}
	})
}

// Nothing is known of a drive of which nothing is out: it may be that keepers are away.
func TestNotAloneBeforeAnythingIsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := resting(t)
		if _, err := d.lookForRing(t.Context()); !errors.Is(err, errUnnamed) {
			t.Errorf("no keyring is out: %v", err)
		}
		d.expect(t, "", "it is now")
		d.id = keyring.DriveID{1}
		d.expect(t, "unsure", "a keyring without the drive is out")
	})
}

// loseRing has all keepers lose the keyring.
func (d *drive) loseRing() { d.loseCopies(slotKeys(keyring.KeyringSlots(d.keys.Root))) }

// A keyring that does not have this device any more is brought to keepers again, also if
// they took nothing when it was found to be lost.
func TestLostKeyringIsBroughtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := out(t)
		for _, refused := range []bool{true, false} {
			d.loseRing()
			d.keepers().refuses = func() bool { return refused }
			d.expect(t, "unsure", "the keyring is lost")
			if d.recoveryOut.Load() == refused {
				t.Errorf("it is out: %v, though keepers took it: %v", refused, !refused)
			}
			d.keepers().refuses = nil
			if refused {
				d.expect(t, "unsure", "keepers took nothing")
			}
			d.expect(t, "", "it was brought again")
		}
	})
}

// A keyring of which few copies are left is brought to keepers again by the next look, and
// the recovery record with it.
func TestRecordsOfWhichFewAreLeftAreBroughtAgain(t *testing.T) {
	for lost, again := range []bool{false, false, false, true, true} {
		synctest.Test(t, func(t *testing.T) {
			d, entropy := resting(t)
			if err := errors.Join(d.publishRecovery(t.Context()), d.publishNewestHead(t.Context())); err != nil {
				t.Fatal(err)
			}
			ring := slotKeys(keyring.KeyringSlots(d.keys.Root))
			recovery := slotKeys(keyring.RecoverySlots(entropy.Key()))
			d.loseCopies(ring[:lost])
			d.loseCopies(recovery[1:])
			d.expect(t, "", "few copies are left")
			want := map[bool][2]int{false: {keyring.Slots - lost, 1}, true: {keyring.Slots, keyring.Slots}}[again]
			for i, slots := range [][]group.SlotKey{ring, recovery} {
				if n, _ := d.net.records.Get(t.Context(), slots).Spread(0); n != want[i] {
					t.Errorf("of %d of the keyring's slots lost: record %d lies in %d slots, not %d", lost, i, n, want[i])
				}
			}
		})
	}
}

// What few keepers say of the keyring is not taken for all there is.
func TestKeyringOfWhichFewAreHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := out(t)
		d.hearsOne(keyring.KeyringSlots(d.keys.Root))
		if _, err := d.lookForRing(t.Context()); !errors.Is(err, devices.ErrUnheard) {
			t.Errorf("%v", err)
		}
	})
}

// hearsOne has all peers not answer any more about some records, but for one that has
// such a record, if there is one.
func (d *drive) hearsOne(slots []keyring.Slot) {
	x := &deaf{Keepers: d.keepers(), keys: map[group.SlotKey]bool{}}
	for _, key := range slotKeys(slots) {
		x.keys[key] = true
		for p, kept := range d.keepers().kept {
			if _, has := kept[key]; has {
				x.but = p
			}
		}
	}
	d.net.records.Keepers = x
}

// deaf are keepers of whom all but one do not answer about some records.
type deaf struct {
	swarm.Keepers
	keys map[group.SlotKey]bool
	but  group.PeerKey
}

func (d *deaf) GetRecord(ctx context.Context, p group.PeerKey, key group.SlotKey) (group.SlotRecord, []byte, error) {
	if d.keys[key] && p != d.but {
		return group.SlotRecord{}, nil, client.ErrUnreachable
	}
	return d.Keepers.GetRecord(ctx, p, key)
}

// Two devices that were recovered from one keyring each write one of the same number,
// one while the other has read and not written yet: in the end it names both, and a
// device that was there before knows of both.
func TestKeyringsOfTwoRecoveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, entropy := resting(t)
		if err := d.publishRecovery(t.Context()); err != nil {
			t.Fatal(err)
		}
		var rings [2]keyring.Keyring
		for i := range rings {
			keys := keyring.Local{Device: secret.New(), Root: d.keys.Root}
			rings[i] = d.shared.Load().WithDevice(certify(keys, uint32(i+5)))
			rings[i].Number++
		}
		share := func(i int) {
			if _, err := d.net.shareRing(t.Context(), d.keys.Root, rings[i]); err != nil {
				t.Error(err)
			}
		}
		var once sync.Once
		d.keepers().hook = func(word []byte) {
			if r, err := keyring.OpenKeyring(d.keys.Root, [][]byte{word}, 0); err == nil && r.Has(rings[0]) && !r.Has(rings[1]) {
				once.Do(func() { share(1) })
			}
		}
		share(0)
		f, err := d.net.findDrive(t.Context(), entropy)
		if err != nil {
			t.Fatal(err)
		}
		if !f.ring.Has(rings[0]) || !f.ring.Has(rings[1]) {
			t.Errorf("keyring %d has %d devices", f.ring.Number, len(f.ring.Known(d.keys.Root)))
		}
		d.expect(t, "others", "two devices joined")
		if !d.shared.Load().Has(f.ring) {
			t.Error("what was learned is forgotten")
		}
	})
}

// Two keyrings of one number that lie with different keepers come to be one, under the
// next number: what is kept under a number stays.
func TestKeyringsOfOneNumberBecomeOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := out(t)
		var rings [2]keyring.Keyring
		for i := range rings {
			rings[i] = d.shared.Load().WithDevice(certify(keyring.Local{Device: secret.New(), Root: d.keys.Root}, uint32(i+5)))
			rings[i].Number++
			sealed, err := keyring.SealKeyring(d.keys.Root, rings[i], time.Now().Add(headTime).Unix())
			if err != nil {
				t.Fatal(err)
			}
			for p := range 4 {
				for _, word := range sealed {
					if err := d.keepers().PutRecord(t.Context(), group.PeerKey{byte(4*i + p + 1)}, word); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		got, err := d.net.shareRing(t.Context(), d.keys.Root, *d.shared.Load())
		if err != nil || got.Number != rings[0].Number+1 || !got.Has(rings[0]) || !got.Has(rings[1]) {
			t.Errorf("%v, keyring %d of %d devices", err, got.Number, len(got.Known(d.keys.Root)))
		}
	})
}

// However few copies of the recovery record are found, whoever recovers brings all of
// them to keepers again.
func TestAllCopiesOfTheRecoveryRecordComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, entropy := resting(t)
		if err := d.publishRecovery(t.Context()); err != nil {
			t.Fatal(err)
		}
		slots := slotKeys(keyring.RecoverySlots(entropy.Key()))
		for _, kept := range d.keepers().kept {
			for _, key := range slots[1:] {
				delete(kept, key)
			}
		}
		f, err := d.net.findDrive(t.Context(), entropy)
		if err != nil {
			t.Fatal(err)
		}
		d.recover.Recovery = f.recovery
		if err := d.publishRecovery(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i, key := range slots {
			if n := len(d.net.records.Get(t.Context(), []group.SlotKey{key}).Copies); n != 2 {
				t.Errorf("slot %d has %d keepers", i, n)
			}
		}
	})
}

// Who recovers learns that a newer head may be out of reach, when the keepers of few
// copies answer, or one keeper alone.
func TestFewCopiesOfTheHead(t *testing.T) {
	for forgotten, few := range []bool{false, false, false, true, true, true} {
		synctest.Test(t, func(t *testing.T) {
			d, entropy := resting(t)
			if err := errors.Join(d.publishRecovery(t.Context()), d.publishNewestHead(t.Context())); err != nil {
				t.Fatal(err)
			}
			c, _ := d.commits()
			d.loses(c.head.Device, forgotten)
			found, err := d.findAll(t.Context(), entropy)
			if err != nil || found.few != few || found.empty != (forgotten == 5) {
				t.Errorf("of 5 copies %d are lost: %v, few %v, empty %v", forgotten, err, found.few, found.empty)
			}
		})
	}
}

// Who recovers learns that a newer head may be out of reach, too, when the head of one
// device is found whole, and that of another one is not heard of, or cannot be read.
func TestHeadOfAnotherDeviceUnheard(t *testing.T) {
	for name, c := range map[string]struct {
		says func(t *testing.T, d *drive, other group.PeerKey)
		few  bool
	}{
		"it has none":    {func(*testing.T, *drive, group.PeerKey) {}, false},
		"an older one":   {func(t *testing.T, d *drive, other group.PeerKey) { d.publishAs(t, d.next(other, 3, 1)) }, false},
		"nobody answers": {func(t *testing.T, d *drive, other group.PeerKey) { d.hearsOne(d.headOf(other)) }, true},
		"one has an older one": {func(t *testing.T, d *drive, other group.PeerKey) {
			d.publishAs(t, d.next(other, 3, 1))
			d.hearsOne(d.headOf(other))
		}, true},
		"what is there is not a head": {func(t *testing.T, d *drive, other group.PeerKey) { d.put(t, d.headOf(other), 9, []byte("something")) }, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := out(t)
			c.says(t, d, d.joins(t))
			found := foundDrive{root: d.keys.Root}
			found.ring, _, _ = d.net.readRing(t.Context(), d.keys.Root, 0)
			found.drive, _ = found.ring.Drive(d.id)
			if err := d.net.findHead(t.Context(), &found); err != nil || found.head.Number != 7 || found.few != c.few {
				t.Errorf("%s: %v, head %d, few %v", name, err, found.head.Number, found.few)
			}
		})
	}
}

// olderRing has one keeper of many peers away while another device joins, so that it keeps
// the keyring before that, and makes head 8. It returns the keepers of the newer one.
func (d *drive) olderRing(t *testing.T) (newer []group.PeerKey) {
	t.Helper()
	for i := 8; i < 64; i++ {
		d.net.peers.Said(group.PeerKey{byte(i + 1)}, wire.Hello{Offered: 1 << 30, Free: 1 << 30})
	}
	if err := errors.Join(d.publishRecovery(t.Context()), d.publishNewestHead(t.Context())); err != nil {
		t.Fatal(err)
	}
	k, slots := d.keepers(), slotKeys(keyring.KeyringSlots(d.keys.Root))
	var older group.PeerKey
	for p, kept := range k.kept {
		if _, ok := kept[slots[0]]; ok {
			older = p
		}
	}
	k.away[older] = true
	d.publishAs(t, d.next(d.joins(t), 8, 1))
	delete(k.away, older)
	for p, kept := range k.kept {
		if slices.ContainsFunc(slots, func(s group.SlotKey) bool {
			r, ok := kept[s]
			return ok && r.rec.Number > d.shared.Load().Number
		}) {
			newer = append(newer, p)
		}
	}
	return newer
}

// Who recovers and finds few copies of a keyring looks around for more keepers, and learns
// that a newer head may be out of reach if they do not come: that of a device which the
// newer keyring names.
func TestFewCopiesOfTheKeyring(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration
		head  uint64
		few   bool
	}{"they do not come": {time.Hour, 7, true}, "they come soon": {headPause, 8, false}} {
		synctest.Test(t, func(t *testing.T) {
			d, entropy := resting(t)
			k := d.keepers()
			for _, p := range d.olderRing(t) {
				k.away[p] = true
			}
			timer := time.AfterFunc(c.after, func() {
				k.mu.Lock()
				defer k.mu.Unlock()
				clear(k.away)
			})
			defer timer.Stop()
			f, err := d.recoveredAgain(t, entropy)
			if err != nil || f.head.Number != c.head || f.few != c.few {
				t.Errorf("%s: %v, head %d, few %v", name, err, f.head.Number, f.few)
			}
		})
	}
}

// While those who keep the heads are silent, no empty drive is made; when they answer, and
// have none, one is.
func TestNoEmptyDriveWhileKeepersAreSilent(t *testing.T) {
	for _, silent := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d, entropy := resting(t)
			if err := d.publishRecovery(t.Context()); err != nil {
				t.Fatal(err)
			}
			c, _ := d.commits()
			if silent {
				d.hearsOne(append(d.headOf(c.head.Device), d.headOf(d.net.self)...))
			}
			f, err := d.recoveredAgain(t, entropy)
			if errors.Is(err, devices.ErrUnheard) != silent || err == nil && !f.empty {
				t.Errorf("silent %v: %v, empty %v", silent, err, f.empty)
			}
		})
	}
}

// Heads are looked for of the devices, too, that a newer keyring names, which is found
// first when a new device is put in.
func TestKeyringThatIsFoundLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, entropy := resting(t)
		k := d.keepers()
		for _, p := range d.olderRing(t) {
			k.away[p] = true
		}
		f, err := d.net.findDrive(t.Context(), entropy)
		if err != nil {
			t.Fatal(err)
		}
		clear(k.away)
		keys := keyring.Local{Device: secret.New(), Root: f.root}
		asked := map[group.SlotKey]bool{}
		d.net.records.Keepers = &deaf{Keepers: k, keys: asked}
		for _, s := range slotKeys(d.headOf(deviceKey(keys))) {
			asked[s] = true
		}
		ring, _, err := d.net.begin(t.Context(), &f, keys, f.ring.FreePrefix())
		if err != nil || f.head.Number != 8 {
			t.Errorf("%v, head %d", err, f.head.Number)
		}
		if f.unheard {
			t.Error("the new device's own head is waited for")
		}
		if len(ring.Known(f.root)) != 3 {
			t.Errorf("it began with %d devices: one that joined at the same time may need what this one gives up", len(ring.Known(f.root)))
		}
	})
}

// One peer that has all five copies is one witness, where the drive has been with
// several.
func TestOneKeeperOfAllCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, entropy := resting(t)
		if err := errors.Join(d.publishRecovery(t.Context()), d.publishNewestHead(t.Context())); err != nil {
			t.Fatal(err)
		}
		k := d.keepers()
		all := map[group.SlotKey]keptRecord{}
		for p, kept := range k.kept {
			for key, r := range kept {
				all[key] = r
			}
			delete(k.kept, p)
		}
		k.kept[group.PeerKey{1}] = all
		if found, err := d.findAll(t.Context(), entropy); err != nil || !found.few || found.empty {
			t.Errorf("%v, few %v, empty %v", err, found.few, found.empty)
		}
		d.expect(t, "unsure", "one keeper has the head of the other device")
	})
}

// Of two devices that make commits of one number in the same second, the words bring back
// one, and the other is overtaken.
func TestHeadsOfOneNumberAndTime(t *testing.T) {
	for range 8 { // device keys are random
		synctest.Test(t, func(t *testing.T) {
			d, entropy := resting(t)
			if err := errors.Join(d.publishRecovery(t.Context()), d.publishNewestHead(t.Context())); err != nil {
				t.Fatal(err)
			}
			other := d.joins(t)
			d.knows(d.next(d.net.self, 8, 1))
			if err := d.publishNewestHead(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.publishAs(t, d.next(other, 8, 2))
			d.expect(t, "others", "another device made a commit")
			f, err := d.findAll(t.Context(), entropy)
			if err != nil || f.head.Number != 8 {
				t.Fatalf("%v, head %d", err, f.head.Number)
			}
			if theirs := f.head.Device == other; theirs != (d.overtaken() != nil) {
				t.Errorf("the words bring back the other one's state: %v; here it is said: %v", theirs, d.overtaken())
			}
		})
	}
}

// A rival that is not heard of at one time is one all the same, until it is followed or
// another has overtaken it.
func TestRivalStays(t *testing.T) {
	head := func(device byte, number uint64) *devices.Found {
		return &devices.Found{Head: commit.Head{Device: group.PeerKey{device}, Number: number}}
	}
	var d drive
	newest := &commit.Commit{Device: group.PeerKey{1}, Number: 4}
	for _, c := range []struct{ found, want *devices.Found }{
		{head(2, 9), head(2, 9)},
		{head(3, 3), head(2, 9)},
		{nil, head(2, 9)},
		{head(3, 12), head(3, 12)},
	} {
		if d.takeRival(c.found, newest); d.rival.Load().Head != c.want.Head {
			t.Errorf("%+v after %+v", d.rival.Load().Head, c.found)
		}
	}
	newest.Follows = []commit.Followed{{Device: group.PeerKey{3}, Number: 12}}
	if d.takeRival(head(2, 9), newest); d.rival.Load().Head.Number != 9 {
		t.Error("one that is followed stays")
	}
}
