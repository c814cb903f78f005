package peers

import (
	"bytes"
	"testing"

	"skep/chunker/group"
	"skep/chunker/record"
	"skep/test/vectors"
)

func TestStoredVector(t *testing.T) {
	b := record.Encode(storedDirectory{Version: storedVersion, Peers: []stored{
		{Key: group.PeerKey{1}, Addrs: []string{"/ip4/192.0.2.1/tcp/4001"}, Offered: 100 << 30, Free: 40 << 30, Region: "DE-BE", Domain: "home",
			HelloAt: 1_800_000_000_000, FirstSeen: 1_700_000_000_001, LastSeen: 1_800_000_000_002, RoundTrip: 35_000_000,
			Availability: 0.75, Windows: 12, Strikes: 1, State: Dead, Pinned: true},
		{Key: group.PeerKey{2}},
	}})
	vectors.Check(t, "directory", "a directory of two peers", b)
	d, err := Decode(b, Options{})
	if err != nil || d.Len() != 2 {
		t.Fatal(err)
	}
	if again := d.Encode(); !bytes.Equal(again, b) {
		t.Errorf("encoded again it is %x", again)
	}
}
