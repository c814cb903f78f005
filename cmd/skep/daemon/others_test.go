package daemon

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"skep/chunker/commit"
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
