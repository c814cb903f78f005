package group_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/record"
	"skep/chunker/secret"
)

// Sets of packs behave like sets of numbers.
func TestBitmap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.Uint16Range(0, group.MaxPacks-1)
		var set, other group.Group // their Dead are the sets
		model, union := map[uint16]bool{}, map[uint16]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			n := number.Draw(t, "n")
			switch rapid.IntRange(0, 2).Draw(t, "op") {
			case 0:
				set.Dead.Add(n)
				model[n] = true
			case 1:
				set.Dead.Remove(n)
				delete(model, n)
			default:
				other.Dead.Add(n)
				union[n] = true
			}
		}
		for n := range uint16(group.MaxPacks + 10) {
			if set.Dead.Has(n) != model[n] {
				t.Fatalf("Has(%d) is %v", n, !model[n])
			}
			both, left := set.Dead.Within(other.Dead), set.Dead.Without(other.Dead)
			if both.Has(n) != (model[n] && union[n]) || left.Has(n) != (model[n] && !union[n]) {
				t.Fatalf("%d is in both: %v, in what is left: %v", n, both.Has(n), left.Has(n))
			}
		}
		if set.Dead.Count() != len(model) {
			t.Fatalf("%d in the set, not %d", set.Dead.Count(), len(model))
		}
		within := true
		for n := range union {
			within = within && model[n]
			model[n] = true
		}
		if set.Dead.Contains(other.Dead) != within {
			t.Fatalf("Contains is %v", !within)
		}
		set.Dead.Union(other.Dead)
		if set.Dead.Count() != len(model) || !set.Dead.Contains(other.Dead) {
			t.Fatal("a union lacks something")
		}
	})
}

func TestSlotSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set group.SlotSet
		model := map[int]bool{}
		for _, i := range rapid.SliceOf(rapid.IntRange(0, erasure.MaxShards-1)).Draw(t, "slots") {
			if model[i] {
				set.Remove(i)
				delete(model, i)
			} else {
				set.Add(i)
				model[i] = true
			}
		}
		for i := range erasure.MaxShards {
			if set.Has(i) != model[i] {
				t.Fatalf("Has(%d) is %v", i, !model[i])
			}
		}
		if set.Count() != len(model) {
			t.Fatal("Count")
		}
	})
}

// parsers read each kind of word, and say only whether it is one.
var parsers = map[string]func([]byte) error{
	"manifest":    func(b []byte) error { _, err := group.ParseManifest(b); return err },
	"lease":       func(b []byte) error { _, err := group.ParseLease(b); return err },
	"statement":   func(b []byte) error { _, err := group.ParseStatement(b); return err },
	"slot record": func(b []byte) error { _, err := group.ParseSlotRecord(b); return err },
	"release":     func(b []byte) error { _, err := group.ParseRelease(b); return err },
}

func words() map[string][]byte {
	return map[string][]byte{
		"manifest":    goldenManifest().Sign(groupKey()),
		"lease":       goldenLease().Sign(groupKey()),
		"statement":   goldenStatement().Sign(holderKey()),
		"slot record": goldenSlotRecord().Sign(holderKey()),
		"release":     goldenRelease().Sign(groupKey()),
	}
}

// A word is of one kind, and any other bit makes it none.
func TestWordsAreNotMistaken(t *testing.T) {
	for kind, word := range words() {
		for as, parse := range parsers {
			if err := parse(word); (err == nil) != (as == kind) {
				t.Errorf("a %s read as a %s: %v", kind, as, err)
			}
		}
		for i := range len(word) * 8 {
			bad := bytes.Clone(word)
			bad[i/8] ^= 1 << (i % 8)
			if parsers[kind](bad) == nil {
				t.Errorf("a %s with bit %d flipped is taken", kind, i)
			}
		}
		for n := range len(word) {
			if parsers[kind](word[:n]) == nil {
				t.Errorf("%d of %d bytes of a %s are taken", n, len(word), kind)
			}
		}
	}
}

// Signing fills in who speaks: nobody signs in the name of another.
func TestSignersSpeakForThemselves(t *testing.T) {
	l := goldenLease()
	l.Group = group.ID{1, 2, 3}
	if got, err := group.ParseLease(l.Sign(groupKey())); err != nil || got.Group != group.IDOf(groupKey()) {
		t.Errorf("%v, %v", got.Group, err)
	}
	// By hand: a lease of that group, signed with another key.
	l.Version, l.Group = 1, group.IDOf(groupKey())
	forged := record.Sign(holderKey(), "skep lease v1", l)
	if _, err := group.ParseLease(forged); !errors.Is(err, record.ErrSignature) {
		t.Errorf("a lease signed with another key: %v", err)
	}
}

// What is signed well and says what cannot be, is refused.
func TestInvalidWords(t *testing.T) {
	manifest := func(change func(*group.Manifest)) []byte {
		m := goldenManifest()
		change(&m)
		return m.Sign(groupKey())
	}
	lease := func(change func(*group.Lease)) []byte {
		l := goldenLease()
		change(&l)
		return l.Sign(groupKey())
	}
	coded := func(k, n uint8, class erasure.Class) []byte {
		return manifest(func(m *group.Manifest) {
			m.Coding, m.Class = erasure.Coding{Kind: erasure.Classic, K: k, N: n}, class
			m.Roots = make([]erasure.Root, n)
		})
	}
	slot := goldenStatement()
	slot.Slot = erasure.MaxShards
	past := goldenSlotRecord()
	past.Until = -1
	newer := goldenLease()
	newer.Version, newer.Group = 2, group.IDOf(groupKey())
	for what, err := range map[string]error{
		"pack 256":               parsers["manifest"](manifest(func(m *group.Manifest) { m.Number = group.MaxPacks })),
		"too few roots":          parsers["manifest"](manifest(func(m *group.Manifest) { m.Roots = m.Roots[1:] })),
		"too many roots":         parsers["manifest"](manifest(func(m *group.Manifest) { m.Roots = append(m.Roots, erasure.Root{}) })),
		"unknown kind of coding": parsers["manifest"](manifest(func(m *group.Manifest) { m.Coding.Kind = 3 })),
		"class 15":               parsers["manifest"](coded(1, 2, 15)),
		"class 27":               parsers["manifest"](coded(1, 2, 27)),
		"k is 0":                 parsers["manifest"](coded(0, 2, 20)),
		"k above n":              parsers["manifest"](coded(3, 2, 20)),
		"k above what fits":      parsers["manifest"](coded(17, 20, 20)),
		"n above 128":            parsers["manifest"](coded(16, 129, 20)),
		"257 packs":              parsers["lease"](lease(func(l *group.Lease) { l.Packs = group.MaxPacks + 1 })),
		"less than no bytes":     parsers["lease"](lease(func(l *group.Lease) { l.Bytes = -1 })),
		"ends before 1970":       parsers["lease"](lease(func(l *group.Lease) { l.Until = -1 })),
		"version 2":              parsers["lease"](record.Sign(groupKey(), "skep lease v1", newer)),
		"slot 128":               parsers["statement"](slot.Sign(holderKey())),
		"record before 1970":     parsers["slot record"](past.Sign(holderKey())),
	} {
		if !errors.Is(err, group.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	large := goldenSlotRecord()
	large.Value = make([]byte, group.MaxSlotRecord)
	if err := parsers["slot record"](large.Sign(holderKey())); !errors.Is(err, record.ErrFormat) {
		t.Errorf("a slot record above the limit: %v", err)
	}
}

// The largest manifest there can be stays below the limit.
func TestLargestManifest(t *testing.T) {
	m := group.Manifest{Number: 255, Class: 26, Coding: erasure.NewCoding(100, erasure.MaxShards), Roots: make([]erasure.Root, erasure.MaxShards)}
	if err := parsers["manifest"](m.Sign(groupKey())); err != nil {
		t.Error(err)
	}
}

func drawLease(t *rapid.T) (group.Lease, []byte) {
	l := group.Lease{
		Number: rapid.Uint64Range(0, 3).Draw(t, "number"), Until: rapid.Int64Range(0, 3).Draw(t, "until"),
		Bytes: rapid.Int64Range(0, 2).Draw(t, "bytes"), Packs: group.MaxPacks,
	}
	for _, n := range rapid.SliceOfN(rapid.Uint16Range(0, 5), 0, 3).Draw(t, "dead") {
		l.Dead.Add(n)
	}
	word := l.Sign(groupKey())
	l, err := group.ParseLease(word)
	if err != nil {
		t.Fatal(err)
	}
	return l, word
}

// Holders that saw the same leases, in whatever order and however often, agree.
func TestLeasesMergeInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type lease struct {
			l    group.Lease
			word []byte
		}
		var all []lease
		for range rapid.IntRange(1, 5).Draw(t, "leases") {
			l, word := drawLease(t)
			all = append(all, lease{l, word})
		}
		merge := func(order []lease) (h group.Holding) {
			for _, l := range order {
				h = h.Merge(l.l, l.word)
			}
			return h
		}
		a := merge(all)
		b := merge(append(rapid.Permutation(all).Draw(t, "order"), all[0]))
		if !bytes.Equal(a.Word, b.Word) || a.Dead != b.Dead || a.Last != b.Last {
			t.Fatalf("%+v and %+v", a, b)
		}
		for _, l := range all {
			if !a.Dead.Contains(l.l.Dead) || a.Last < l.l.Until || a.Lease.Number < l.l.Number {
				t.Fatalf("%+v forgot %+v", a, l.l)
			}
		}
	})
}

// Of two different slot records exactly one counts more.
func TestNewer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one := func(name string) group.SlotRecord {
			return group.SlotRecord{Number: rapid.Uint64Range(0, 2).Draw(t, name), Until: rapid.Int64Range(0, 2).Draw(t, name),
				Value: rapid.SliceOfN(rapid.ByteRange(0, 1), 0, 2).Draw(t, name)}
		}
		a, b, c := one("a"), one("b"), one("c")
		same := a.Number == b.Number && a.Until == b.Until && bytes.Equal(a.Value, b.Value)
		if same == (a.Newer(&b) != b.Newer(&a)) {
			t.Fatalf("%+v, %+v", a, b)
		}
		if a.Newer(&b) && b.Newer(&c) && !a.Newer(&c) {
			t.Fatalf("not an order: %+v, %+v, %+v", a, b, c)
		}
	})
}

// Under one number the first value stays; one can replace another and be replaced by
// it only if it is not there any more.
func TestReplaces(t *testing.T) {
	kept := group.SlotRecord{Number: 5, Until: 50, Value: []byte("kept")}
	for _, c := range []struct {
		r    group.SlotRecord
		want bool
	}{
		{group.SlotRecord{Number: 4, Until: 60, Value: []byte("kept")}, false},
		{group.SlotRecord{Number: 5, Until: 50, Value: []byte("kept")}, false},
		{group.SlotRecord{Number: 5, Until: 51, Value: []byte("kept")}, true},
		{group.SlotRecord{Number: 5, Until: 60, Value: []byte("zzzz")}, false},
		{group.SlotRecord{Number: 6, Until: 40, Value: []byte("next")}, true},
	} {
		if got := c.r.Replaces(&kept); got != c.want {
			t.Errorf("%+v replaces what is kept: %v", c.r, got)
		}
	}
}

// Keys of groups and names of slots do not collide.
func TestNames(t *testing.T) {
	seen := map[[32]byte]bool{}
	for i := range byte(50) {
		key := group.KeyOf(secret.Key{1}, [16]byte{i})
		id := group.IDOf(key)
		for _, name := range [][32]byte{id, id.Blinded(), group.SlotKeyOf(key.Public().(ed25519.PublicKey))} {
			if seen[name] {
				t.Fatalf("two things are named %x", name)
			}
			seen[name] = true
		}
	}
	if group.IDOf(group.KeyOf(secret.Key{1}, [16]byte{1})) == group.IDOf(group.KeyOf(secret.Key{2}, [16]byte{1})) {
		t.Error("two owners have one group")
	}
	if !(group.PeerKey{}).IsZero() || (group.PeerKey{1}).IsZero() {
		t.Error("IsZero")
	}
}

func TestHoldingSizes(t *testing.T) {
	var h group.Holding
	if h.ShardSize() != 0 || h.Bytes() != 0 {
		t.Error("a group without shards has a size")
	}
	h.Class, h.Coding = 20, erasure.NewCoding(4, 7)
	h.Held.Add(3)
	h.Held.Add(200)
	if h.ShardSize() != 256<<10 || h.Bytes() != 512<<10 {
		t.Errorf("%d, %d", h.ShardSize(), h.Bytes())
	}
}

func FuzzParse(f *testing.F) {
	for _, w := range words() {
		f.Add(w)
	}
	genuine := words()
	f.Fuzz(func(t *testing.T, b []byte) {
		for kind, parse := range parsers {
			if parse(b) != nil {
				continue
			}
			// Taken: then its payload is one that was signed.
			var got, want record.Signed
			if record.Decode(b, 1<<20, &got) != nil || record.Decode(genuine[kind], 1<<20, &want) != nil {
				t.Fatal("a word that is no signed record was taken")
			}
			if signedByUs(got) && !bytes.Equal(got.Payload, want.Payload) {
				t.Fatalf("forged: a %s %x", kind, got.Payload)
			}
		}
	})
}

// signedByUs reports whether a payload names one of the keys of this test;
// others may sign what they like.
func signedByUs(s record.Signed) bool {
	id := group.IDOf(groupKey())
	return bytes.Contains(s.Payload, id[:]) || bytes.Contains(s.Payload, holderKey().Public().(ed25519.PublicKey))
}

// The owner knows of each group who may hold something that has no slot, and of no
// holder that it would have no slot.
func TestFormerHolders(t *testing.T) {
	g := group.Group{Coding: erasure.NewCoding(2, 3), Slots: []group.PeerKey{peer(1), peer(2), {}}}
	check := func(want ...group.Former) {
		t.Helper()
		if !slices.Equal(g.Former, want) || !g.FormerValid() {
			t.Errorf("%v, want %v", g.Former, want)
		}
	}
	g.Move(2, peer(3)) // from nobody
	check()
	g.Move(0, peer(4))
	check(group.Former{Holder: peer(1), Slot: 0})
	g.Left(1, peer(4)) // it has a slot
	g.Left(3, peer(6)) // there is no such slot
	g.Left(1, peer(5))
	check(group.Former{Holder: peer(1), Slot: 0}, group.Former{Holder: peer(5), Slot: 1})
	g.Move(1, peer(1))
	check(group.Former{Holder: peer(5), Slot: 1}, group.Former{Holder: peer(2), Slot: 1})
	before := g.Former
	g.Forget(peer(5))
	if before[0].Holder != peer(5) {
		t.Error("a copy of the list was altered")
	}
	check(group.Former{Holder: peer(2), Slot: 1})
	g.Forget(peer(2))
	check()
	if g.Former != nil {
		t.Error("an empty list")
	}
	for n := range group.MaxFormer + 5 {
		g.Left(2, peer(byte(10+n)))
	}
	if len(g.Former) != group.MaxFormer || g.Former[0].Holder != peer(15) || !g.FormerValid() {
		t.Errorf("%d former holders, first %v", len(g.Former), g.Former[0])
	}
	g.Former[3].Slot = 3
	if g.FormerValid() {
		t.Error("a slot that is not there")
	}
}
