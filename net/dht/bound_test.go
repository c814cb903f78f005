package dht

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"
)

// pending is how many holders the table's library may know that are not in the datastore
// yet, and closer how many peers it names in an answer.
const pending, closer = 320, 20

// However many say to hold something, and whatever they say of themselves: all that an
// answer tells is taken by who asked.
func TestLongestAnswer(t *testing.T) {
	b := newBounded(16<<20, provider)
	for i := range 3 * mostBelow {
		if err := b.Put(t.Context(), datastore.NewKey(fmt.Sprintf("/providers/X/%d", i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for range 20 {
		got, err := b.Query(t.Context(), query.Query{Prefix: "/providers/X"})
		if err != nil {
			t.Fatal(err)
		}
		all, _ := got.Rest()
		if len(all) != mostBelow {
			t.Fatalf("%d of %d", len(all), mostBelow)
		}
		for _, e := range all {
			seen[e.Key] = true
		}
	}
	if len(seen) < 2*mostBelow {
		t.Errorf("always the same: %d", len(seen))
	}
	for length := 1; length < 600; length += 7 {
		var addrs []multiaddr.Multiaddr
		for range 2 * mostAddressBytes / length {
			addrs = append(addrs, multiaddr.StringCast("/dns4/"+strings.Repeat("x", length)))
		}
		info := peer.AddrInfo{ID: peer.ID(bytes.Repeat([]byte{1}, 44)), Addrs: few(addrs)}
		m := pb.NewMessage(pb.Message_GET_PROVIDERS, make([]byte, 80), 0)
		m.ProviderPeers = pb.RawPeerInfosToPBPeers(slices.Repeat([]peer.AddrInfo{info}, mostBelow+pending))
		m.CloserPeers = pb.RawPeerInfosToPBPeers(slices.Repeat([]peer.AddrInfo{info}, closer))
		if n := proto.Size(m); n > maxAnswer-(1<<10) {
			t.Fatalf("%d bytes, %d addresses of %d", n, len(info.Addrs), length)
		}
	}
}

// Where not all addresses are taken, the public ones are first.
func TestFew(t *testing.T) {
	var addrs []multiaddr.Multiaddr
	for i := range 40 {
		addrs = append(addrs, multiaddr.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", i)), multiaddr.StringCast(fmt.Sprintf("/ip4/10.0.0.%d/tcp/1", i)))
	}
	public := multiaddr.StringCast("/ip4/8.8.8.8/tcp/1")
	got := few(append(addrs, public))
	if len(got) != mostAddresses || !got[0].Equal(public) || got[1].String() != "/ip4/10.0.0.0/tcp/1" {
		t.Errorf("%v", got)
	}
	if got := few(addrs[:4]); len(got) != 4 || !got[0].Equal(addrs[0]) {
		t.Errorf("of four: %v", got)
	}
}

// Those go that were told longest ago.
func TestTold(t *testing.T) {
	k := newTold(100, 4)
	at := func(i int) multiaddr.Multiaddr { return multiaddr.StringCast(fmt.Sprintf("/ip4/8.8.8.8/tcp/%d", i)) }
	for i := range 6 {
		k.add("a", []multiaddr.Multiaddr{at(i)})
	}
	if got := k.of("a"); len(got) != 4 || !got[0].Equal(at(5)) {
		t.Errorf("%v", got)
	}
	for i := range 500 {
		k.add(peer.ID(fmt.Sprint(i)), []multiaddr.Multiaddr{at(1), at(2)})
		k.add("often", []multiaddr.Multiaddr{at(i)})
		if n := len(k.recent) + len(k.older); n > 2*100 {
			t.Fatalf("%d peers are kept", n)
		}
	}
	if len(k.of("a")) != 0 || len(k.of("499")) != 2 || len(k.of("often")) != 4 {
		t.Errorf("%v %v %v", k.of("a"), k.of("499"), k.of("often"))
	}
}
