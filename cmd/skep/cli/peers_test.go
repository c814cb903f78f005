package cli

import (
	"fmt"
	"strings"
	"testing"

	"skep/cmd/skep/control"
)

func printed(fn func(line func(string, string, ...any))) string {
	var b strings.Builder
	fn(func(name, format string, args ...any) { fmt.Fprintln(&b, name, fmt.Sprintf(format, args...)) })
	return b.String()
}

// Status names who holds the drive, how much of it each, and how they are.
func TestHoldersAreTold(t *testing.T) {
	peers := []control.Peer{{ID: "a", Shards: 1, State: "dead"}, {ID: "none", State: "unknown"},
		{ID: "b", Shards: 7, State: "alive", Region: "DE-BE"}}
	text := printed(func(line func(string, string, ...any)) { printPeers(line, control.Status{Peers: peers}) })
	want := "Swarm 1 of 3 known peers answers\n 1 of them has not been heard of since the daemon started\n" +
		"Holders b  88 %  7 shards   alive, DE-BE\n a  13 %  1 shard    dead\n"
	if text != want {
		t.Errorf("told\n%swant\n%s", text, want)
	}
	for range 40 {
		peers = append(peers, control.Peer{ID: "many", Shards: 2, State: "alive"})
	}
	text = printed(func(line func(string, string, ...any)) { printPeers(line, control.Status{Peers: peers}) })
	if n := strings.Count(text, "many"); n != mostHolders-1 || !strings.Contains(text, "and 18 peers with less") {
		t.Errorf("of 42 holders is told:\n%s", text)
	}
}

// Before the holders were asked, nothing is said of how safe the drive is.
func TestSafetyBeforeAnybodyWasAsked(t *testing.T) {
	text := printed(func(line func(string, string, ...any)) {
		printSafety(line, control.Status{Codings: []control.Coding{{Packs: 3}, {Packs: 4}}})
	})
	if !strings.Contains(text, "not known yet: the holders of 7 packs") || strings.Contains(text, "nothing is with holders") {
		t.Errorf("told %s", text)
	}
}

// What waits to be given up is told if it is worth it, and with when it is.
func TestWhatIsToBeFreed(t *testing.T) {
	for bytes, told := range map[int64]bool{300 << 10: false, 5 << 20: true} {
		text := printed(func(line func(string, string, ...any)) {
			printDrive(line, control.Status{Unneeded: 2, UnneededBytes: bytes, UnneededUntil: "soon"})
		})
		if strings.Contains(text, "To be freed 2 packs with") != told || strings.Contains(text, "soon") != told {
			t.Errorf("of %d bytes is told:\n%s", bytes, text)
		}
	}
}

// While holders are being asked, status says of how many it speaks.
func TestSafetyWhileHoldersAreAsked(t *testing.T) {
	text := printed(func(line func(string, string, ...any)) {
		printSafety(line, control.Status{Packs: 7, PacksAway: 3, PacksUnasked: 7, Holders: 6, Asked: 1,
			Peers: []control.Peer{{State: "alive"}}})
	})
	want := "Safety 3 of 7 packs cannot be read now: too few holders answer\n" +
		" as far as is known: 1 of 6 holders was asked so far, and the drive\n may be safer than it looks\n"
	if text != want {
		t.Errorf("told\n%swant\n%s", text, want)
	}
}

// Before the swarm is joined, that nobody answers is no news.
func TestSafetyWhileJoining(t *testing.T) {
	text := printed(func(line func(string, string, ...any)) {
		printSafety(line, control.Status{Packs: 7, PacksAway: 7, PacksUnasked: 7, Joining: true})
	})
	if want := "Safety not known yet: the swarm is being joined\n"; text != want {
		t.Errorf("told\n%swant\n%s", text, want)
	}
}
