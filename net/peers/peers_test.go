package peers

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skep/chunker/group"
	"skep/chunker/record"
	"skep/net/place"
	"skep/net/wire"
)

// clock is a time that moves when told to.
type clock struct{ now time.Time }

func newClock() *clock                   { return &clock{time.UnixMilli(1_800_000_000_000)} }
func (c *clock) Now() time.Time          { return c.now }
func (c *clock) advance(d time.Duration) { c.now = c.now.Add(d) }

func key(n int) (k group.PeerKey) {
	binary.BigEndian.PutUint32(k[:], uint32(n))
	k[31] = 1
	return k
}

func get(t *testing.T, d *Directory, n int) Peer {
	t.Helper()
	p, ok := d.Get(key(n))
	if !ok {
		t.Fatalf("peer %d is not known", n)
	}
	return p
}

func TestWhatIsLearnt(t *testing.T) {
	c := newClock()
	d := New(Options{Clock: c.Now})
	start := c.now
	d.Heard(key(1), "/ip4/192.0.2.1/udp/1/quic-v1", "", strings.Repeat("x", MaxAddr+1))
	if p := get(t, d, 1); !p.FirstSeen.IsZero() || !p.LastSeen.IsZero() || p.Availability != Prior || len(p.Addrs) != 1 {
		t.Errorf("heard of: %+v", p)
	}
	d.Seen(key(1), "/ip4/192.0.2.2/udp/1/quic-v1")
	c.advance(time.Minute)
	d.Said(key(1), wire.Hello{Offered: 100, Free: 60, Region: "DE-BY", Domain: "home"})
	d.Took(key(1), 20)
	d.Timed(key(1), 80*time.Millisecond)
	d.Timed(key(1), 160*time.Millisecond)
	d.Timed(key(1), 0)
	d.Strike(key(1))
	d.Judge(key(1), Suspect)
	d.Pin(key(1), true)
	want := Peer{
		Key: key(1), Addrs: []string{"/ip4/192.0.2.2/udp/1/quic-v1", "/ip4/192.0.2.1/udp/1/quic-v1"},
		Offered: 100, Free: 40, Region: "DE-BY", Domain: "home", HelloAt: c.now,
		FirstSeen: start, LastSeen: c.now, Asked: true, RoundTrip: 90 * time.Millisecond,
		Availability: Prior, Strikes: 1, StruckAt: c.now, Barred: true, State: Suspect, Pinned: true,
	}
	if p := get(t, d, 1); !reflect.DeepEqual(p, want) {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
	d.Took(key(1), -1000)
	if p := get(t, d, 1); p.Free != 100 {
		t.Errorf("more room than is offered: %d", p.Free)
	}
	d.Full(key(1))
	if p := get(t, d, 1); p.Free != 0 {
		t.Errorf("full, with room for %d", p.Free)
	}
	d.Forget(key(1))
	d.Missed(key(1))
	d.Seen(group.PeerKey{}, "")
	if d.Len() != 0 {
		t.Error("a forgotten peer, or no peer, is known")
	}
}

func TestAvailability(t *testing.T) {
	for _, c := range []struct {
		name   string
		up     func(hour int) bool
		weeks  int
		lo, hi float64
	}{
		{"always there", func(int) bool { return true }, 8, 0.99, 1},
		{"never again", func(int) bool { return false }, 8, 0, 0.05},
		{"two hours of three", func(h int) bool { return h%3 != 0 }, 8, 0.62, 0.71},
		{"by day", func(h int) bool { return h%24 < 12 }, 8, 0.45, 0.55},
		{"there at first, then gone for a week", func(h int) bool { return h < 8*7*24-7*24 }, 8, 0.4, 0.65},
	} {
		t.Run(c.name, func(t *testing.T) {
			clk := newClock()
			d := New(Options{Clock: clk.Now})
			d.Seen(key(1), "")
			d.Pin(key(1), true) // or one that never comes again is forgotten
			for h := range c.weeks * 7 * 24 {
				for range 4 {
					d.Seen(key(2), "") // so that we are known to be there
					if c.up(h) {
						d.Seen(key(1), "")
					} else {
						d.Missed(key(1))
					}
					clk.advance(15 * time.Minute)
				}
			}
			if p := get(t, d, 1); p.Availability < c.lo || p.Availability > c.hi {
				t.Errorf("%.3f, want %g to %g", p.Availability, c.lo, c.hi)
			}
		})
	}
}

func TestOurOwnAbsenceCountsForNobody(t *testing.T) {
	clk := newClock()
	d := New(Options{Clock: clk.Now})
	d.Seen(key(1), "")
	clk.advance(2 * time.Hour)
	d.Missed(key(1)) // closes the window in which it answered
	before := get(t, d, 1)
	for range 100 {
		clk.advance(time.Hour)
		d.Missed(key(1))
	}
	if after := get(t, d, 1); after.Availability != before.Availability || after.Windows != before.Windows {
		t.Errorf("measured from %+v to %+v while nobody answered", before, after)
	}
}

func TestTheWorstGoes(t *testing.T) {
	clk := newClock()
	d := New(Options{Clock: clk.Now, Max: 6})
	add := func(n int, more func()) {
		clk.advance(time.Second)
		d.Said(key(n), wire.Hello{Offered: 10, Free: 10})
		if more != nil {
			more()
		}
	}
	add(1, func() { d.Strike(key(1)); d.Strike(key(1)); d.Pin(key(1), true) }) // pinned: stays
	add(2, func() { d.Strike(key(2)) })
	add(3, func() { d.Judge(key(3), Dead) })
	d.Heard(key(4), "x")
	add(5, func() { d.Judge(key(5), Suspect) })
	add(6, nil)
	for i, want := range []int{2, 3, 4, 5, 6} {
		if _, ok := d.Get(key(want)); !ok {
			t.Fatalf("%d went too early", want)
		}
		add(10+i, nil)
		if _, ok := d.Get(key(want)); ok {
			t.Fatalf("%d is still there, of %v", want, d.List())
		}
	}
	if _, ok := d.Get(key(1)); !ok || d.Len() != 6 {
		t.Errorf("the pinned one is gone, or %d are left", d.Len())
	}
}

// Made-up peers do not drive out those that have answered.
func TestHearsayDoesNotFlush(t *testing.T) {
	d := New(Options{Clock: newClock().Now, Max: 20})
	for n := range 20 {
		d.Seen(key(n), "")
	}
	for n := range 1000 {
		d.Heard(key(100+n), "somewhere")
	}
	for n := range 20 {
		if _, ok := d.Get(key(n)); !ok {
			t.Fatalf("peer %d was driven out", n)
		}
	}
}

func TestEncodeDecode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clk := newClock()
		o := Options{Clock: clk.Now, Max: rapid.IntRange(1, 12).Draw(t, "max")}
		d := New(o)
		t.Repeat(map[string]func(*rapid.T){
			"heard":   func(t *rapid.T) { d.Heard(drawKey(t), rapid.SliceOfN(rapid.String(), 0, 12).Draw(t, "addrs")...) },
			"seen":    func(t *rapid.T) { d.Seen(drawKey(t), rapid.StringN(0, 20, 300).Draw(t, "addr")) },
			"missed":  func(t *rapid.T) { d.Missed(drawKey(t)) },
			"said":    func(t *rapid.T) { d.Said(drawKey(t), wire.Hello{Offered: 9, Free: 5, Region: "DE"}) },
			"strike":  func(t *rapid.T) { d.Strike(drawKey(t)) },
			"judge":   func(t *rapid.T) { d.Judge(drawKey(t), State(rapid.IntRange(0, 3).Draw(t, "state"))) },
			"took":    func(t *rapid.T) { d.Took(drawKey(t), rapid.Int64Range(-20, 20).Draw(t, "bytes")) },
			"timed":   func(t *rapid.T) { d.Timed(drawKey(t), time.Duration(rapid.Int64Range(-1, 1<<40).Draw(t, "rtt"))) },
			"advance": func(t *rapid.T) { clk.advance(time.Duration(rapid.Int64Range(0, 1<<43).Draw(t, "by"))) },
			"": func(t *rapid.T) {
				if d.Len() > o.Max {
					t.Fatalf("%d peers, at most %d", d.Len(), o.Max)
				}
				back, err := Decode(d.Encode(), o)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.EqualFunc(d.List(), back.List(), equal) {
					t.Fatalf("got  %+v\nwant %+v", back.List(), d.List())
				}
			},
		})
	})
}

func drawKey(t *rapid.T) group.PeerKey { return key(rapid.IntRange(0, 15).Draw(t, "peer")) }

// equal compares two peers to the millisecond that is stored.
func equal(a, b Peer) bool {
	for _, p := range []*Peer{&a, &b} {
		p.HelloAt, p.FirstSeen, p.LastSeen = fromMillis(millis(p.HelloAt)), fromMillis(millis(p.FirstSeen)), fromMillis(millis(p.LastSeen))
		p.StruckAt = fromMillis(millis(p.StruckAt))
		p.Asked, p.Misses = false, 0 // of the run
		if len(p.Addrs) == 0 {
			p.Addrs = nil
		}
	}
	return reflect.DeepEqual(a, b)
}

func TestDecodeRefuses(t *testing.T) {
	ok := stored{Key: key(1), Offered: 5, Free: 5, Availability: 0.5}
	change := func(f func(*stored)) []stored {
		s := ok
		f(&s)
		return []stored{s}
	}
	for name, ps := range map[string][]stored{
		"no key":          change(func(s *stored) { s.Key = group.PeerKey{} }),
		"twice":           {ok, ok},
		"negative room":   change(func(s *stored) { s.Free = -1 }),
		"silent before":   change(func(s *stored) { s.Silent = -1 }),
		"not a number":    change(func(s *stored) { s.Availability = math.NaN() }),
		"above one":       change(func(s *stored) { s.Availability = 1.1 }),
		"long region":     change(func(s *stored) { s.Region = strings.Repeat("x", 100) }),
		"long address":    change(func(s *stored) { s.Addrs = []string{strings.Repeat("x", 1000)} }),
		"many":            change(func(s *stored) { s.Addrs = slices.Repeat([]string{"x"}, 100) }),
		"lies at no time": change(func(s *stored) { s.Strikes = 1 }),
		"no state":        change(func(s *stored) { s.Judged = 9 }),
	} {
		if _, err := Decode(record.Encode(storedDirectory{Version: storedVersion, Peers: ps}), Options{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Decode(record.Encode(storedDirectory{Version: storedVersion + 1}), Options{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("next version: %v", err)
	}
	if _, err := Decode([]byte("nonsense"), Options{}); !errors.Is(err, record.ErrFormat) {
		t.Errorf("nonsense: %v", err)
	}
}

// The file under testdata was written once and is read for ever.
func TestGolden(t *testing.T) {
	clk := newClock()
	d := New(Options{Clock: clk.Now})
	d.Heard(key(1), "/ip4/192.0.2.1/tcp/4001")
	d.Said(key(2), wire.Hello{Offered: 1 << 40, Free: 1 << 39, Region: "DE-BY/1", Domain: "home"})
	d.Seen(key(2), "/ip6/2001:db8::1/udp/1/quic-v1")
	d.Timed(key(2), 23*time.Millisecond)
	d.Strike(key(2))
	d.Judge(key(2), Alive)
	d.Pin(key(2), true)
	clk.advance(time.Hour)
	d.Missed(key(2))
	d.Seen(key(3), "")
	const name = "testdata/v3.cbor"
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		b = d.Encode()
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		t.Fatalf("%s was not there and has been written: look at it and commit it", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(d.Encode(), b) {
		t.Error("today's encoding differs")
	}
	back, err := Decode(b, Options{Clock: clk.Now})
	if err != nil || !slices.EqualFunc(back.List(), d.List(), equal) {
		t.Errorf("%v: %+v", err, back)
	}
}

func TestDomains(t *testing.T) {
	for _, c := range []struct {
		peer Peer
		want place.Domain
	}{
		{Peer{}, place.Domain{"", "unknown", "", ""}},
		{Peer{Domain: "home", Region: "DE-BY/1", Addrs: []string{"/ip4/192.0.2.77/udp/1/quic-v1"}}, place.Domain{"home", "192.0.2.0/24", "", "DE"}},
		{Peer{Addrs: []string{"/dns4/a.example/tcp/1", "/ip6/2001:db8:1:2::3/tcp/1"}}, place.Domain{"", "2001:db8:1::/48", "", ""}},
		{Peer{Addrs: []string{"/ip4/127.0.0.1/tcp/1"}}, place.Domain{"", "loopback", "", ""}},
		{Peer{Addrs: []string{"/ip6/::1/tcp/1"}}, place.Domain{"", "loopback", "", ""}},
		{Peer{Addrs: []string{"/ip6/::ffff:192.0.2.9/tcp/1"}}, place.Domain{"", "192.0.2.0/24", "", ""}},
		{Peer{Addrs: []string{"/ip4/198.51.100.1/tcp/1/p2p/x/p2p-circuit", "/ip4/192.0.2.1/tcp/1"}}, place.Domain{"", "192.0.2.0/24", "", ""}},
		{Peer{Addrs: []string{"/ip4/999.0.0.1/tcp/1", "nonsense", "/"}, Region: "FR"}, place.Domain{"", "unknown", "", "FR"}},
	} {
		if got := c.peer.Domains(); got != c.want {
			t.Errorf("%v: %q, want %q", c.peer.Addrs, got, c.want)
		}
	}
	p := Peer{Key: key(3), Free: 7, Region: "DE", Availability: 0.5}
	if got := p.Candidate(4); got.Key != key(3) || got.Free != 7 || got.Load != 4 || got.Availability != 0.5 || got.Domain[place.Country] != "DE" {
		t.Errorf("candidate %+v", got)
	}
}

// Peers at no address that is known may be one machine: whatever household and country
// each of them claims, no two get slots as long as there are others.
func TestPeersOfUnknownNetworksAreOneDomain(t *testing.T) {
	var all []place.Candidate
	met := map[group.PeerKey]bool{}
	for i := range 6 {
		met[key(i+1)] = true
		all = append(all, Peer{Key: key(i + 1), Free: 1, Addrs: []string{fmt.Sprintf("/ip4/192.0.%d.1/tcp/1", i)}}.Candidate(0))
	}
	for i := range 20 {
		claims := Peer{Key: key(i + 10), Free: 1 << 40, Domain: fmt.Sprint("home ", i), Region: string(rune('A'+i)) + "X"}
		all = append(all, claims.Candidate(0))
	}
	for seed := range uint64(20) {
		p, err := place.Choose(place.Request{Slots: 7}, all, rand.New(rand.NewPCG(seed, 1)))
		known := slices.DeleteFunc(p.Peers, func(k group.PeerKey) bool { return !met[k] })
		if err != nil || len(known) != 6 {
			t.Fatalf("%d of 6 peers of known networks have slots: %v", len(known), err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	d := New(Options{Max: 50, Window: time.Microsecond})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				n := (g*31 + i) % 80
				d.Heard(key(n), fmt.Sprint("addr ", i))
				d.Seen(key(n), "")
				d.Missed(key(n))
				d.Judge(key(n), Alive)
				for _, p := range d.List() {
					_ = p.Domains()
				}
				if i%50 == 0 {
					_ = d.Encode()
				}
			}
		})
	}
	wg.Wait()
	if d.Len() > 50 || d.Revision() == 0 {
		t.Errorf("%d peers, revision %d", d.Len(), d.Revision())
	}
}

func FuzzDecode(f *testing.F) {
	d := New(Options{Clock: newClock().Now})
	d.Said(key(1), wire.Hello{Offered: 5, Free: 5, Region: "DE"})
	d.Heard(key(2), "/ip4/192.0.2.1/tcp/1")
	f.Add(d.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Decode(b, Options{Clock: newClock().Now, Max: 8})
		if err != nil {
			return
		}
		if d.Len() > 8 {
			t.Skip("pinned ones stay")
		}
		again, err := Decode(d.Encode(), Options{Clock: newClock().Now, Max: 8})
		if err != nil || again.Len() != d.Len() {
			t.Fatalf("what was read cannot be written: %v", err)
		}
	})
}

// How long who lied gets nothing, and when that is forgotten.
func TestBarred(t *testing.T) {
	const day, year = 24 * time.Hour, 360 * 24 * time.Hour
	for _, c := range []struct {
		strikes int
		ago     time.Duration
		want    bool
	}{
		{0, 0, false},
		{1, 0, true}, {1, 29 * day, true}, {1, 30 * day, false},
		{2, 0, true}, {2, 119 * day, true}, {2, 120 * day, false},
		{3, 359 * day, true}, {3, 360 * day, false}, {maxStrikes, 360 * day, false},
		{1, -time.Hour, true}, // a clock that was set back
	} {
		if got := barred(c.strikes, c.ago, year); got != c.want {
			t.Errorf("%d lies, the last %v ago: barred is %v", c.strikes, c.ago, got)
		}
	}
}

// Lies of long ago are forgotten, also over a restart; new ones begin anew.
func TestLiesAreForgotten(t *testing.T) {
	c := newClock()
	o := Options{Clock: c.Now, Memory: 360 * 24 * time.Hour}
	d := New(o)
	d.Seen(key(1), "")
	d.Strike(key(1))
	d.Strike(key(1))
	c.advance(100 * 24 * time.Hour)
	d, err := Decode(d.Encode(), o)
	if err != nil {
		t.Fatal(err)
	}
	if p := get(t, d, 1); !p.Barred || p.Strikes != 2 {
		t.Errorf("after a third of a year: %+v", p)
	}
	c.advance(30 * 24 * time.Hour)
	if p := get(t, d, 1); p.Barred || p.Strikes != 2 {
		t.Errorf("after more than that: %+v", p)
	}
	c.advance(300 * 24 * time.Hour)
	d.Seen(key(1), "")
	d.Strike(key(1))
	if p := get(t, d, 1); !p.Barred || p.Strikes != 1 || !p.StruckAt.Equal(c.now) {
		t.Errorf("a new lie after a year: %+v", p)
	}
}
