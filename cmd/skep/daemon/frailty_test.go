package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"skep/repair/plan"
)

// A sync says what it leaves less safe than one may think, and else nothing.
func TestFrailtySay(t *testing.T) {
	for _, c := range []struct {
		f    frailty
		want string
	}{
		{frailty{}, ""},
		{frailty{Frailty: plan.Frailty{Frail: 3}}, "3 packs survive the loss of no holder: with more peers"},
		{frailty{Frailty: plan.Frailty{Frail: 1}}, "1 pack survives the loss of no holder: with more peers"},
		{frailty{Frailty: plan.Frailty{Weak: 2, Frail: 3}, both: 2}, "3 packs survive"},
		{frailty{Frailty: plan.Frailty{Weak: 2}}, "2 packs, out before there were so many peers, are to be stored again"},
		{frailty{Frailty: plan.Frailty{Weak: 1, Frail: 1}, both: 1}, "1 pack, out before there were so many peers, is to be stored again"},
	} {
		got := c.f.say()
		if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%+v: %q", c.f, got)
		}
	}
}

// Why packs could not be stored with more holders is said, in words that say more than
// that the time of the sync is over.
func TestFrailErrorSays(t *testing.T) {
	for _, c := range []struct {
		err    error
		wanted string
	}{
		{nil, "goes on trying"},
		{fmt.Errorf("round 2: %w", context.DeadlineExceeded), "goes on trying"},
		{errors.New("too few holders"), "goes on trying: too few holders"},
	} {
		if got := (&FrailError{Packs: 2, Err: c.err}).Error(); !strings.HasSuffix(got, c.wanted) {
			t.Errorf("%v: %q", c.err, got)
		}
	}
	for n, want := range map[int]string{1: "it is on this device only", 2: "they are on this device only"} {
		if got := (&FrailError{OnlyHere: n, Packs: 3}).Error(); !strings.Contains(got, want) {
			t.Errorf("%d: %q", n, got)
		}
	}
}
