package daemon

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skep/chunker/devices"
	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/chunker/secret"
	"skep/chunker/words"
)

// recoveredAgain does what a recovery does with the keyring and the heads.
func (d *drive) recoveredAgain(t *testing.T, entropy words.Entropy) (foundDrive, error) {
	t.Helper()
	f, err := d.net.findDrive(t.Context(), entropy)
	if err != nil {
		return f, err
	}
	keys := keyring.Local{Device: secret.New(), Root: f.root}
	ring, _, err := d.net.begin(t.Context(), &f, keys, f.ring.FreePrefix())
	if err != nil {
		return f, err
	}
	_, err = sealRing(keys.Root, ring)
	return f, err
}

// After many recoveries that made no commit, the words bring back the commit that
// there is; and the device that is still there comes back into the keyring.
func TestManyRecoveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, entropy := resting(t)
		if err := errors.Join(d.publishRecovery(t.Context()), d.publishNewestHead(t.Context())); err != nil {
			t.Fatal(err)
		}
		for i := range 2 * keyring.MaxDevices {
			f, err := d.recoveredAgain(t, entropy)
			if err != nil || f.empty || f.head.Number != 7 {
				t.Fatalf("recovery %d: %v, head %d", i, err, f.head.Number)
			}
		}
		named := func() (prefix uint32) {
			f, err := d.net.findDrive(t.Context(), entropy)
			if err != nil {
				t.Fatal(err)
			}
			for _, dev := range f.ring.Known(d.keys.Root) {
				if dev.Key == d.net.self {
					prefix = dev.Prefix
				}
			}
			return prefix
		}
		if named() != 0 {
			t.Fatal("the keyring names all devices")
		}
		d.expect(t, "unsure", "it is not named")
		if got := named(); got != 2 {
			t.Errorf("the device that is there is in the keyring under prefix %d", got)
		}
		d.expect(t, "others", "it is named again")
	})
}

// Whoever goes on while a new device makes itself known, and does not know it yet, is
// followed: the head is looked for after that.
func TestHeadIsFoundAfterTheDeviceIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, entropy := resting(t)
		if err := errors.Join(d.publishRecovery(t.Context()), d.publishNewestHead(t.Context())); err != nil {
			t.Fatal(err)
		}
		devices := len(d.shared.Load().Devices)
		next, k, once := d.next(d.net.self, 8, 1), d.keepers(), sync.Once{}
		k.hook = func(word []byte) {
			if r, err := keyring.OpenKeyring(d.keys.Root, [][]byte{word}, 0); err == nil && len(r.Devices) > devices {
				once.Do(func() { d.publishAs(t, next) })
			}
		}
		if f, err := d.recoveredAgain(t, entropy); err != nil || f.head.Number != next.Number {
			t.Errorf("%v, head %d", err, f.head.Number)
		}
	})
}

// A new device that would have another one give way waits until it is known which one
// made the newest commit.
func TestFullKeyringWithKeepersAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, entropy := resting(t)
		if err := errors.Join(d.publishRecovery(t.Context()), d.publishNewestHead(t.Context())); err != nil {
			t.Fatal(err)
		}
		for range keyring.MaxDevices - 2 {
			if _, err := d.recoveredAgain(t, entropy); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		c, _ := d.commits()
		d.loses(c.head.Device, 5)
		if _, err := d.recoveredAgain(t, entropy); err != nil {
			t.Errorf("nothing was ever out: %v", err)
		}
		f, err := d.net.findDrive(t.Context(), entropy)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 6 {
			d.keepers().away[group.PeerKey{byte(i + 1)}] = true
		}
		if err := d.net.keepNewest(t.Context(), &f); !errors.Is(err, devices.ErrUnheard) {
			t.Errorf("keepers are away: %v", err)
		}
	})
}

// Keepers that answer soon are told of a new device; of those that do not, it is said, and
// no keyring is kept as if they had it.
func TestAnnouncedPatiently(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration
		told  bool
	}{"at once": {0, true}, "soon": {headPause + headPause/2, true}, "never": {time.Hour, false}} {
		synctest.Test(t, func(t *testing.T) {
			d, _ := resting(t)
			if err := d.publishRecovery(t.Context()); err != nil {
				t.Fatal(err)
			}
			keys := keyring.Local{Device: secret.New(), Root: d.keys.Root}
			ring := withOwn(*d.shared.Load(), keys, 5)
			k, begin := d.keepers(), time.Now()
			k.refuses = func() bool { return time.Since(begin) < c.after }
			_, rec, err := d.net.announce(t.Context(), d.keys.Root, ring)
			if err != nil || (rec.Keyring != nil) != c.told {
				t.Errorf("keepers answer %s: %v, a keyring of %d bytes", name, err, len(rec.Keyring))
			}
			if found, _, err := d.net.readRing(t.Context(), d.keys.Root, 0); err != nil || found.Has(ring) != c.told {
				t.Errorf("keepers answer %s: they have %d devices, %v", name, len(found.Devices), err)
			}
		})
	}
}

// A keyring for which there is no room is not tried again, and its error is told.
func TestAnnounceTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := resting(t)
		ring := *d.shared.Load()
		for range 200 {
			ring = ring.WithDrive(keyring.NewDrive("one of too many"))
		}
		if _, _, err := d.net.announce(t.Context(), d.keys.Root, ring); !errors.Is(err, keyring.ErrTooLarge) {
			t.Errorf("%v", err)
		}
	})
}
