package health

import (
	"errors"
	"slices"
	"testing"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/peers"
)

// Content goes only when enough holders are there, and can be read from those that answer.
func TestHeld(t *testing.T) {
	var (
		there   = peers.Peer{State: peers.Alive, Asked: true}
		before  = peers.Peer{State: peers.Alive}
		unknown = peers.Peer{}
		silent  = peers.Peer{State: peers.Alive, Asked: true, Misses: 1}
		suspect = peers.Peer{State: peers.Suspect, Asked: true}
		dead    = peers.Peer{State: peers.Dead, Asked: true}
		barred  = peers.Peer{State: peers.Alive, Asked: true, Barred: true}
	)
	of := func(n int, p peers.Peer, others ...peers.Peer) []peers.Peer {
		return append(slices.Repeat([]peers.Peer{p}, n), others...)
	}
	for name, c := range map[string]struct {
		pack            PackHealth
		holders         []peers.Peer
		online, offline bool // it may go
	}{
		"all are there":                  {PackHealth{Health: Healthy}, of(7, there), true, true},
		"enough are":                     {PackHealth{Health: Healthy}, of(5, there), true, true},
		"one fewer":                      {PackHealth{Health: Healthy}, of(4, there), false, false},
		"repair does not know it":        {PackHealth{}, of(5, there), true, true},
		"nobody knows the holders":       {PackHealth{}, of(5, unknown), false, false},
		"none was asked since the start": {PackHealth{Health: Healthy}, of(7, before), false, false},
		"a few were":                     {PackHealth{Health: Healthy}, of(3, before, there, there, there, there), false, false},
		"enough were":                    {PackHealth{Health: Healthy}, of(2, before, there, there, there, there, there), true, true},
		"a few were, and are silent":     {PackHealth{Health: Healthy}, of(3, before, silent, silent, silent, silent), false, false},
		"nobody answers":                 {PackHealth{Health: Healthy}, of(5, silent), false, true},
		"one is suspect":                 {PackHealth{Health: Healthy}, of(4, there, suspect), false, false},
		"one is dead":                    {PackHealth{Health: Healthy}, of(4, there, dead), false, false},
		"one lied":                       {PackHealth{Health: Healthy}, of(4, there, barred), false, false},
		"others than those needed are":   {PackHealth{Health: Injured}, of(5, there, dead, suspect), true, true},
		"all but one are silent now":     {PackHealth{Health: Healthy}, of(6, silent, there), false, true},
		"k and one to spare answer":      {PackHealth{Health: Healthy}, of(4, there, silent), true, true},
		"only k do":                      {PackHealth{Health: Healthy}, of(3, there, silent, silent), false, true},
		"k and a dead one":               {PackHealth{Health: Healthy}, of(3, there, silent, silent, dead), false, true},
		"repair calls it lost":           {PackHealth{Health: Lost}, of(7, there), false, false},
		"repair cannot read it now":      {PackHealth{Health: Injured, Away: true}, of(7, there), false, true},
		"none was asked about it":        {PackHealth{Health: Healthy, Live: 7, Unasked: 7}, of(7, there), false, false},
		"too few were asked about it":    {PackHealth{Health: Healthy, Live: 7, Unasked: 3}, of(7, there), false, false},
		"enough were asked about it":     {PackHealth{Health: Healthy, Live: 7, Unasked: 2}, of(7, there), true, true},
		"nobody has acknowledged any":    {PackHealth{Health: Healthy}, nil, false, false},
		"healthy, at risk, and readable": {PackHealth{Health: Healthy, AtRisk: true}, of(5, there), true, true},
	} {
		for online, want := range map[bool]bool{true: c.online, false: c.offline} {
			err := Evidence{c.pack, erasure.NewCoding(3, 7), 5, c.holders, online}.Held()
			if (err == nil) != want || err != nil && !errors.Is(err, ErrFewHolders) {
				t.Errorf("%s, online %v: %v", name, online, err)
			}
		}
	}
}

// With fewer slots than k and one, those that are enough have to answer.
func TestHeldByOne(t *testing.T) {
	for misses, want := range map[int]bool{0: true, 1: false} {
		holder := []peers.Peer{{State: peers.Alive, Asked: true, Misses: misses}}
		err := Evidence{PackHealth{Health: Healthy}, erasure.NewCoding(1, 1), 1, holder, true}.Held()
		if (err == nil) != want {
			t.Errorf("%d questions without an answer: %v", misses, err)
		}
	}
}

// What is out with k holders alone stays here until there is another.
func TestHeldByNoneToSpare(t *testing.T) {
	for holders, want := range map[int]bool{1: false, 2: true} {
		err := Evidence{PackHealth{Health: Injured}, erasure.NewCoding(1, 2), 1, slices.Repeat([]peers.Peer{{Asked: true}}, holders), false}.Held()
		if (err == nil) != want {
			t.Errorf("%d of two holders: %v", holders, err)
		}
	}
}

// A device is online when somebody else answers it.
func TestOnline(t *testing.T) {
	self, now := group.PeerKey{1}, time.Unix(1_800_000_000, 0)
	for name, c := range map[string]struct {
		known peers.Peer
		want  bool
	}{
		"nobody is known":    {peers.Peer{}, false},
		"only it itself":     {peers.Peer{Key: self, Asked: true, LastSeen: now}, false},
		"another":            {peers.Peer{Key: group.PeerKey{2}, Asked: true, LastSeen: now.Add(-59 * time.Minute)}, true},
		"one of before":      {peers.Peer{Key: group.PeerKey{2}, LastSeen: now.Add(-59 * time.Minute)}, false},
		"not lately":         {peers.Peer{Key: group.PeerKey{2}, Asked: true, LastSeen: now.Add(-time.Hour)}, false},
		"not any more":       {peers.Peer{Key: group.PeerKey{2}, Asked: true, LastSeen: now, Misses: 1}, false},
		"one that never did": {peers.Peer{Key: group.PeerKey{2}}, false},
	} {
		if got := Online([]peers.Peer{c.known}, self, now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
