package dht

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestAskingIsShared: however many streams a few keys open, and keep busy, those of a
// peer that has one stay, and a new one has its place.
func TestAskingIsShared(t *testing.T) {
	a := &asking{since: map[*guarded]time.Time{}}
	now := time.Now()
	ended := map[*guarded]bool{}
	enter := func(from string, after time.Duration) *guarded {
		g := &guarded{from: peer.ID(from)}
		if last := a.add(g, now.Add(after)); last != nil {
			ended[last] = true
		}
		return g
	}
	honest := enter("honest", 0)
	var theirs []*guarded
	for i := range 8 * maxAsking {
		theirs = append(theirs, enter(fmt.Sprint(i%33), time.Duration(i)*time.Second))
	}
	newcomer := enter("newcomer", 0)
	for _, g := range theirs[:8*maxAsking-maxAsking] {
		a.hear(g, now.Add(time.Hour)) // one that has ended is not counted in again
	}
	if len(a.since) != maxAsking {
		t.Errorf("%d streams are open, at most %d", len(a.since), maxAsking)
	}
	if ended[honest] || ended[newcomer] {
		t.Error("who has one stream lost it")
	}
	if ended[theirs[len(theirs)-1]] || !ended[theirs[0]] {
		t.Error("of the others, not the one ended that was silent for the longest time")
	}
	for g := range a.since {
		a.leave(g)
	}
	if len(a.since) != 0 {
		t.Error("streams that ended are counted")
	}
}
