package daemon

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"skep/chunker/commit"
	"skep/chunker/keyring"
)

// What another device published, or this one in a later state, is found, as long
// as that device may live.
func TestCommitsOfOthersAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := resting(t)
		others, _, _ := d.newest()
		self := deviceKey(d.keys)
		knows := func(begun, newest uint64) bool {
			t.Helper()
			known, err := d.knowsAll(t.Context(), view{self: self, begun: begun, newest: newest, now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			return known
		}
		if !knows(0, 0) {
			t.Error("a drive of which nothing is out has others")
		}
		if err := errors.Join(d.publishRecoveryOnce(t.Context()), d.publishNewestHead(t.Context())); err != nil {
			t.Fatal(err)
		}
		if !knows(others.Number, others.Number) {
			t.Error("the commit that this device began with is not known")
		}
		if knows(0, others.Number+5) || knows(others.Number-1, others.Number+5) {
			t.Error("another device's commit was not found")
		}
		forget(d, 3)
		if knows(others.Number, others.Number) {
			t.Error("two of five copies are enough to know that there is no newer head")
		}
		if err := d.publishNewestHead(t.Context()); err != nil {
			t.Fatal(err)
		}
		own := others
		own.Device, own.Number = self, others.Number+2
		d.newest = func() (commit.Head, bool, error) { return own, true, nil }
		if err := d.publishNewestHead(t.Context()); err != nil {
			t.Fatal(err)
		}
		if knows(others.Number, own.Number-2) {
			t.Error("a later state of this device was not found")
		}
		if !knows(others.Number, own.Number-1) || !knows(others.Number, own.Number) {
			t.Error("what this device just published is not known")
		}
		time.Sleep(othersHorizon + time.Hour)
		if !knows(0, own.Number) {
			t.Error("a device counts that has been away for long")
		}
	})
}

// forget has the keepers of so many slots of the newest head lose their copies.
func forget(d *drive, slots int) {
	h, _, _ := d.newest()
	k := d.net.records.Keepers.(*keepers)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range slotKeys(keyring.HeadSlots(d.keys.Root, d.id, h.Device, d.epoch))[:slots] {
		for _, kept := range k.kept {
			delete(kept, key)
		}
	}
}

// Who recovers learns that a newer head may be out of reach, when the keepers of few
// copies answer.
func TestFewCopiesOfTheHead(t *testing.T) {
	for forgotten, few := range []bool{false, false, false, true, true, true} {
		synctest.Test(t, func(t *testing.T) {
			d, entropy := resting(t)
			if err := errors.Join(d.publishRecoveryOnce(t.Context()), d.publishNewestHead(t.Context())); err != nil {
				t.Fatal(err)
			}
			forget(d, forgotten)
			found, err := d.net.findDrive(t.Context(), entropy)
			if err != nil || found.few != few || found.empty != (forgotten == 5) {
				t.Errorf("of 5 copies %d are lost: %v, few %v, empty %v", forgotten, err, found.few, found.empty)
			}
		})
	}
}
