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

// Those go that were told longest ago, and what one told goes when it tells something else.
func TestTold(t *testing.T) {
	k := newTold(100, 4)
	at := func(i int) []multiaddr.Multiaddr {
		return []multiaddr.Multiaddr{multiaddr.StringCast(fmt.Sprintf("/ip4/8.8.8.8/tcp/%d", i))}
	}
	teller := func(i int) peer.ID { return peer.ID(fmt.Sprint("teller", i)) }
	for i := range 6 {
		k.add("a", teller(i), at(i))
	}
	if got := k.of("a"); len(got) != 4 || !got[0].addrs[0].Equal(at(5)[0]) {
		t.Errorf("%v", got)
	}
	k.add("a", teller(3), at(9))
	if got := inTurn(k.of("a")); len(got) != 4 || !got[0].Equal(at(9)[0]) || slices.ContainsFunc(got, at(3)[0].Equal) {
		t.Errorf("%v", got)
	}
	for i := range 500 {
		k.add(peer.ID(fmt.Sprint(i)), "teller", append(at(1), at(2)...))
		k.add("often", teller(i), at(i))
		if n := len(k.recent) + len(k.older); n > 2*100 {
			t.Fatalf("%d peers are kept", n)
		}
	}
	if len(k.of("a")) != 0 || number(k.of("499")) != 2 || len(k.of("often")) != 4 {
		t.Errorf("%v %v %v", k.of("a"), k.of("499"), k.of("often"))
	}
}

// Who tells many addresses is one among those who tell, and what several told comes first.
func TestInTurn(t *testing.T) {
	at := func(ports ...int) (out []multiaddr.Multiaddr) {
		for _, p := range ports {
			out = append(out, multiaddr.StringCast(fmt.Sprintf("/ip4/8.8.8.8/tcp/%d", p)))
		}
		return out
	}
	liar := said{"liar", at(1, 2, 3, 4, 5, 6, 7, 8, 9)}
	got := inTurn([]said{liar, {"one", at(100, 101)}, {"another", at(100, 102)}})
	if want := at(100, 1, 2, 101, 102, 3, 4, 5, 6, 7, 8, 9); !slices.EqualFunc(got, want, func(a, b multiaddr.Multiaddr) bool { return a.Equal(b) }) {
		t.Errorf("%v", got)
	}
}
