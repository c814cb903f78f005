package place

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"skep/chunker/group"
)

func key(n int) (k group.PeerKey) {
	binary.BigEndian.PutUint32(k[:], uint32(n))
	return k
}

func source(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// candidate is one with much room and a household of its own.
func candidate(n int) Candidate {
	return Candidate{
		Key: key(n), Free: 1 << 40, Region: "DE-BY", Availability: 0.9,
		Domain: Domain{fmt.Sprint("household ", n), fmt.Sprint("10.0.", n, ".0/24"), fmt.Sprint("operator ", n%7), fmt.Sprint("country ", n%3)},
	}
}

func candidates(n int) []Candidate {
	out := make([]Candidate, n)
	for i := range out {
		out[i] = candidate(i + 1)
	}
	return out
}

// drawCandidates draws a swarm with few or many domains at each level.
func drawCandidates(t *rapid.T) []Candidate {
	out := candidates(rapid.IntRange(1, 40).Draw(t, "peers"))
	for i := range out {
		c := &out[i]
		for l := range c.Domain {
			c.Domain[l] = rapid.SampledFrom([]string{"", "a", "b", "c", "d", "e", "f"}).Draw(t, "domain")
		}
		c.Free = rapid.Int64Range(0, 1<<40).Draw(t, "free")
		c.Load = rapid.IntRange(0, 20).Draw(t, "load")
		c.Availability = rapid.Float64Range(0, 1).Draw(t, "availability")
		c.Region = rapid.SampledFrom([]string{"", "DE", "DE-BY", "FR", "DEX"}).Draw(t, "region")
	}
	return out
}

func TestPlacementsHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := drawCandidates(t)
		beside := rapid.IntRange(0, min(5, len(all))).Draw(t, "beside")
		r := Request{
			Slots:  rapid.IntRange(0, 40).Draw(t, "slots"),
			Bytes:  rapid.Int64Range(0, 1<<39).Draw(t, "bytes"),
			Beside: all[:beside],
			Not:    []group.PeerKey{key(7), key(9)},
			Policy: Policy{Never: []string{"FR"}},
		}
		allowed := map[group.PeerKey]Candidate{}
		for _, c := range all[beside:] {
			if c.Free >= r.Bytes && c.Free > 0 && c.Region != "FR" && !slices.Contains(r.Not, c.Key) {
				allowed[c.Key] = c
			}
		}
		seed := rapid.Uint64().Draw(t, "seed")
		p, err := Choose(r, all, source(seed))
		if want := min(r.Slots, len(allowed)); len(p.Peers) != want || errors.Is(err, ErrTooFew) != (want < r.Slots) {
			t.Fatalf("%d peers for %d slots of %d candidates: %v", len(p.Peers), r.Slots, len(allowed), err)
		}
		checkSpread(t, r, p, allowed)

		shuffled := slices.Clone(all)
		source(seed+1).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		again, _ := Choose(r, append(shuffled, shuffled...), source(seed))
		if !reflect.DeepEqual(p, again) {
			t.Fatal("the order of the candidates, or one named twice, matters")
		}
	})
}

// checkSpread checks that the peers are distinct, that Fullest is true, and
// that no slot could have gone to a household with fewer slots.
func checkSpread(t *rapid.T, r Request, p Placement, allowed map[group.PeerKey]Candidate) {
	var count [Levels]map[string]int
	for l := range count {
		count[l] = map[string]int{}
	}
	add := func(d Domain) {
		for l, name := range d.at() {
			count[l][name]++
		}
	}
	for _, b := range r.Beside {
		add(b.Domain)
	}
	for _, k := range p.Peers {
		c, ok := allowed[k]
		if !ok {
			t.Fatalf("%v is not allowed, or was picked twice", k)
		}
		delete(allowed, k)
		mine := count[Household][c.Domain.at()[Household]]
		for _, other := range allowed {
			if count[Household][other.Domain.at()[Household]] < mine {
				t.Fatalf("%v has %d slots of its household, %v fewer", k, mine, other.Key)
			}
		}
		add(c.Domain)
	}
	for l := range count {
		most := 0
		for _, n := range count[l] {
			most = max(most, n)
		}
		if p.Fullest[l] != most {
			t.Fatalf("level %d has %d slots in its fullest domain, not %d", l, most, p.Fullest[l])
		}
	}
}

func TestSpreadsOverOperatorsAndCountries(t *testing.T) {
	p, err := Choose(Request{Slots: 21}, candidates(200), source(1))
	if err != nil {
		t.Fatal(err)
	}
	if p.Fullest != [Levels]int{1, 1, 3, 7} {
		t.Errorf("21 slots over 7 operators in 3 countries: %v", p.Fullest)
	}
}

func TestOneLoopbackIsNoReasonToFail(t *testing.T) {
	all := candidates(8)
	for i := range all {
		all[i].Domain = Domain{AddressGroup: "127.0.0.0/8"}
	}
	p, err := Choose(Request{Slots: 7}, all, source(1))
	if err != nil || len(p.Peers) != 7 {
		t.Fatalf("%v", err)
	}
	if p.Fullest != [Levels]int{7, 7, 7, 7} {
		t.Errorf("fullest: %v", p.Fullest)
	}
}

func TestOneSlotIsSpreadFromThoseBeside(t *testing.T) {
	all := candidates(10)
	for i := range all {
		all[i].Domain = Domain{fmt.Sprint("household ", i%5)}
	}
	for seed := range uint64(50) {
		p, err := Choose(Request{Slots: 1, Beside: all[:4], Not: []group.PeerKey{key(5)}}, all, source(seed))
		if err != nil || p.Peers[0] != key(10) {
			t.Fatalf("%v, %v", p.Peers, err) // the only one left in household 4
		}
	}
}

func TestPreference(t *testing.T) {
	for name, c := range map[string]struct {
		change func(better, worse *Candidate)
		policy Policy
	}{
		"more room":           {func(better, _ *Candidate) { better.Free *= 4 }, Policy{}},
		"more often there":    {func(_, worse *Candidate) { worse.Availability = 0.3 }, Policy{}},
		"fewer slots of ours": {func(_, worse *Candidate) { worse.Load = 3 }, Policy{}},
		"preferred region":    {func(better, _ *Candidate) { better.Region, better.Free = "CH", 1<<20 }, Policy{Prefer: []string{"CH"}}},
	} {
		better, worse := candidate(2), candidate(2)
		worse.Key = key(1)
		c.change(&better, &worse)
		for seed := range uint64(50) {
			p, err := Choose(Request{Slots: 1, Policy: c.policy}, []Candidate{worse, better}, source(seed))
			if err != nil || p.Peers[0] != better.Key {
				t.Fatalf("%s is not preferred: %v", name, err)
			}
		}
	}
}

// Equals are picked equally often.
func TestChanceDecidesAmongEquals(t *testing.T) {
	all := candidates(10)
	for i := range all {
		all[i].Domain[Operator], all[i].Domain[Country] = "o", "c"
	}
	picked := map[group.PeerKey]int{}
	const rounds = 5000
	rnd := source(1)
	for range rounds {
		p, err := Choose(Request{Slots: 3}, all, rnd)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range p.Peers {
			picked[k]++
		}
	}
	for k, n := range picked {
		if n < rounds*3/10*9/10 || n > rounds*3/10*11/10 {
			t.Errorf("%v was picked %d times, expected about %d", k, n, rounds*3/10)
		}
	}
}

// Slots of many groups settle in proportion to the room.
// Who claims to have more room than anybody can have gets no more than one who has 4 TiB.
func TestClaimedRoom(t *testing.T) {
	all := candidates(10)
	all[0].Free = 1 << 62
	for i := range all {
		all[i].Domain = Domain{}
	}
	rnd := source(1)
	for range 100 {
		p, err := Choose(Request{Slots: 1, Bytes: 1}, all, rnd)
		if err != nil {
			t.Fatal(err)
		}
		for i := range all {
			if all[i].Key == p.Peers[0] {
				all[i].Load++
			}
		}
	}
	if n := all[0].Load; n > 40 {
		t.Errorf("it has %d of 100 slots, among ten", n)
	}
}

func TestLoadFollowsRoom(t *testing.T) {
	all := candidates(20)
	for i := range all {
		all[i].Domain = Domain{AddressGroup: "one"}
		if i < 10 {
			all[i].Free *= 4
		}
	}
	rnd := source(3)
	for range 300 {
		p, err := Choose(Request{Slots: 7}, all, rnd)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range p.Peers {
			all[binary.BigEndian.Uint32(k[:])-1].Load++
		}
	}
	big, small := 0, 0
	for i, c := range all {
		if i < 10 {
			big += c.Load
		} else {
			small += c.Load
		}
	}
	if ratio := float64(big) / float64(small); ratio < 2.5 || ratio > 6 {
		t.Errorf("peers with four times the room have %.1f times the slots", ratio)
	}
}

func TestPolicy(t *testing.T) {
	for _, c := range []struct {
		policy Policy
		region string
		want   bool
	}{
		{Policy{}, "", true},
		{Policy{Only: []string{"DE"}}, "DE", true},
		{Policy{Only: []string{"DE"}}, "DE-BY", true},
		{Policy{Only: []string{"DE-BY"}}, "DE", false},
		{Policy{Only: []string{"DE"}}, "DEX", false},
		{Policy{Only: []string{"DE-BY"}}, "DE-BY/1", true},
		{Policy{Only: []string{"DE", "CH"}}, "CH-ZH", true},
		{Policy{Only: []string{"DE"}}, "", false},
		{Policy{Never: []string{"US"}}, "US-CA", false},
		{Policy{Never: []string{"US"}}, "", true},
		{Policy{Only: []string{"DE"}, Never: []string{"DE-BY"}}, "DE-BY", false},
		{Policy{Only: []string{""}}, "DE", false},
	} {
		if got := c.policy.Allows(c.region); got != c.want {
			t.Errorf("%+v allows %q: %v", c.policy, c.region, got)
		}
	}
}

func BenchmarkChoose(b *testing.B) {
	all := candidates(1000)
	rnd := source(1)
	for b.Loop() {
		if _, err := Choose(Request{Slots: 55}, all, rnd); err != nil {
			b.Fatal(err)
		}
	}
}
