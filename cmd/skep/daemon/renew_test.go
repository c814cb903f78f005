package daemon

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skep/chunker/commit"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/chunker/link"
	"skep/chunker/secret"
	"skep/chunker/words"
	"skep/cmd/skep/home"
	"skep/net/peers"
	"skep/net/swarm"
	"skep/net/wire"
)

// keepers keep records as the real ones do: 800 days at most, the one that
// counts most.
type keepers struct {
	mu   sync.Mutex // guards kept
	kept map[group.PeerKey]map[group.SlotKey]keptRecord
	puts int
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
	k.mu.Lock()
	defer k.mu.Unlock()
	k.puts++
	if k.kept[p] == nil {
		k.kept[p] = map[group.SlotKey]keptRecord{}
	}
	if old, ok := k.kept[p][r.Key()]; ok && old.rec.Newer(&r) {
		return errors.New("a newer one is kept")
	}
	k.kept[p][r.Key()] = keptRecord{word, r, time.Now()}
	return nil
}

func (k *keepers) GetRecord(_ context.Context, p group.PeerKey, key group.SlotKey) (group.SlotRecord, []byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r, ok := k.kept[p][key]
	if !ok || time.Now().Unix() >= r.rec.Until || time.Since(r.came) >= 800*24*time.Hour {
		return group.SlotRecord{}, nil, errors.New("absent")
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
	d := &drive{id: own.ID, keys: keys, epoch: own.Newest(), home: home.Dir(t.TempDir()), log: discard(),
		ring: keyring.Keyring{Number: 2}.WithDrive(own).WithDevice(certify(gone, 1)).WithDevice(certify(keys, 2))}
	var err error
	d.recover.Recovery, err = keyring.SealRecovery(entropy.Key(), keyring.Recovery{Root: keys.Root}, 1, time.Now().Add(recoveryTime).Unix())
	if err != nil {
		t.Fatal(err)
	}
	head := commit.Head{Drive: own.ID, Device: deviceKey(gone), Number: 7, Time: 1, Commit: commit.Locator{Group: group.ID{1},
		Class: 20, Coding: erasure.NewCoding(2, 3), Length: 100, Link: link.Link{Codec: link.CBOR, Hash: link.Hash{1}, Key: secret.Key{1}}}}
	d.newest = func() (commit.Head, bool, error) { return head, true, nil }
	known := peers.New(peers.Options{})
	for i := range 8 {
		known.Said(group.PeerKey{byte(i + 1)}, wire.Hello{Offered: 1 << 30, Free: 1 << 30})
	}
	d.net = &network{peers: known, swarm: swarm.New(swarm.Config{}),
		records: &swarm.Records{Keepers: &keepers{kept: map[group.PeerKey]map[group.SlotKey]keptRecord{}}, Peers: known}}
	return d, entropy
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
		found, err := d.net.findDrive(t.Context(), entropy)
		if err != nil || found.empty || found.head.Number != 7 || found.drive.ID != d.id {
			t.Errorf("a year later: %v, head %d", err, found.head.Number)
		}
		puts := d.net.records.Keepers.(*keepers).puts
		if weeks := 3 * 365 / 7; puts > 3*5*2*(weeks+2) {
			t.Errorf("%d records were brought in %d weeks", puts, weeks)
		}
		<-time.After(60 * 24 * time.Hour)
		if found, err := d.net.findDrive(t.Context(), entropy); err == nil && !found.empty {
			t.Error("records are there for ever")
		}
	})
}
