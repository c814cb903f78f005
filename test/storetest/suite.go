package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/holder"
)

// Until is the end of the leases of the suite, in Unix seconds.
const Until = 4_000_000_000

// Test runs the suite on empty stores that open makes, each offering 64 MiB.
func Test(t *testing.T, open func(t *testing.T) holder.Store) {
	for name, f := range map[string]func(*testing.T, holder.Store){
		"shard":     testShard,
		"refusals":  testRefusals,
		"failures":  testFailures,
		"dead":      testDead,
		"leases":    testLeases,
		"release":   testRelease,
		"records":   testRecords,
		"races":     testRaces,
		"many":      testMany,
		"slots":     testSlots,
		"manifests": testManifests,
		"verify":    testVerify,
		"first":     testFirst,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

func admit(t *testing.T, s holder.Store, o *Owner, slot uint8, number uint64, changes ...func(*group.Lease)) group.Holding {
	t.Helper()
	l, word := o.Lease(number, Until, changes...)
	h, err := s.Admit(l, word, slot, group.PeerKey{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func put(t *testing.T, s holder.Store, p Pack, slot uint8) {
	t.Helper()
	if err := s.PutShard(&p.Manifest, p.Word, slot, bytes.NewReader(p.Shards[slot])); err != nil {
		t.Fatal(err)
	}
}

// Check reads a shard back in several ranges and audits it.
func Check(t *testing.T, s holder.Store, p Pack, slot uint8) {
	t.Helper()
	m := &p.Manifest
	size := m.ShardSize()
	for _, r := range [][2]int{{0, size}, {0, erasure.Unit}, {size - 1, 1}, {size / 2, size / 4}} {
		var b bytes.Buffer
		if err := s.WriteSlice(&b, m.Group, m.Number, r[0], r[1]); err != nil {
			t.Fatalf("range %v: %v", r, err)
		}
		got := make([]byte, r[1])
		if err := erasure.ReadSlice(&b, got, size, r[0], m.Roots[slot]); err != nil || b.Len() > 0 || !bytes.Equal(got, p.Shards[slot][r[0]:r[0]+r[1]]) {
			t.Fatalf("range %v of pack %d: %v", r, m.Number, err)
		}
		b.Reset()
		if err := s.WriteRange(&b, m.Group, m.Number, r[0], r[1]); err != nil || !bytes.Equal(b.Bytes(), p.Shards[slot][r[0]:r[0]+r[1]]) {
			t.Fatalf("bare range %v of pack %d: %v", r, m.Number, err)
		}
	}
	var b bytes.Buffer
	nonce := erasure.Nonce{1, 2, 3}
	if err := s.WriteSamples(&b, m.Group, m.Number, nonce, 5); err != nil {
		t.Fatal(err)
	}
	if err := erasure.ReadSamples(&b, nonce, size, m.Roots[slot], 5); err != nil {
		t.Fatal(err)
	}
}

func testShard(t *testing.T, s holder.Store) {
	o := NewOwner(1, 18, 3, 5)
	offered, before := s.Room()
	if offered != 64<<20 {
		t.Errorf("offers %d bytes", offered)
	}
	admit(t, s, o, 2, 1)
	p := o.Pack(t, 7)
	put(t, s, p, 2)
	put(t, s, p, 2) // again: no harm
	Check(t, s, p, 2)
	h, ok := s.Holding(o.ID)
	if !ok || h.Held.Count() != 1 || !h.Held.Has(7) || h.Bytes() != int64(p.Manifest.ShardSize()) || h.Slot != 2 || h.Coding != o.Coding {
		t.Errorf("holding is %+v, %v", h, ok)
	}
	if _, used := s.Room(); used-before < int64(p.Manifest.ShardSize()) || used-before > int64(p.Manifest.ShardSize())+32<<10 {
		t.Errorf("a shard of %d bytes takes %d", p.Manifest.ShardSize(), used-before)
	}
	if err := s.PutShard(&p.Manifest, p.Word, 2, iotest.ErrReader(errors.New("read"))); err != nil {
		t.Errorf("a shard that is there was read: %v", err)
	}
}

func testRefusals(t *testing.T, s holder.Store) {
	o := NewOwner(2, 18, 2, 4)
	p := o.Pack(t, 0)
	putSlot := func(p Pack, slot uint8) error {
		return s.PutShard(&p.Manifest, p.Word, slot, bytes.NewReader(p.Shards[slot]))
	}
	if err := putSlot(p, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a lease: %v", err)
	}
	admit(t, s, o, 1, 1)
	put(t, s, p, 1)
	if err := putSlot(o.Pack(t, 1), 2); !errors.Is(err, group.ErrInvalid) {
		t.Errorf("another slot: %v", err)
	}
	other := NewOwner(2, 18, 3, 4).Pack(t, 1)
	if err := putSlot(other, 1); !errors.Is(err, group.ErrInvalid) {
		t.Errorf("another coding: %v", err)
	}
	if err := s.WriteSlice(io.Discard, o.ID, 0, 0, p.Manifest.ShardSize()+1); !errors.Is(err, group.ErrInvalid) {
		t.Errorf("range past the end: %v", err)
	}
	for _, err := range []error{
		s.WriteSlice(io.Discard, o.ID, 9, 0, 1),
		s.WriteSlice(io.Discard, group.ID{9}, 0, 0, 1),
		s.WriteSamples(io.Discard, o.ID, 9, erasure.Nonce{}, 1),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("absent shard: %v", err)
		}
	}
	if _, err := s.Manifest(o.ID, 9); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent manifest: %v", err)
	}
	Check(t, s, p, 1)
}

func testFailures(t *testing.T, s holder.Store) {
	o := NewOwner(3, 18, 2, 3)
	admit(t, s, o, 0, 1)
	p := o.Pack(t, 0)
	_, before := s.Room()
	broken := errors.New("broken")
	bad := bytes.Clone(p.Shards[0])
	bad[100_000] ^= 1
	for name, c := range map[string]struct {
		body io.Reader
		want error
	}{
		"broken":  {io.MultiReader(bytes.NewReader(p.Shards[0][:90_000]), iotest.ErrReader(broken)), broken},
		"short":   {bytes.NewReader(p.Shards[0][:90_000]), io.ErrUnexpectedEOF},
		"empty":   {bytes.NewReader(nil), io.ErrUnexpectedEOF},
		"altered": {bytes.NewReader(bad), erasure.ErrProof},
	} {
		if err := s.PutShard(&p.Manifest, p.Word, 0, c.body); !errors.Is(err, c.want) {
			t.Errorf("%s body: %v", name, err)
		}
		h, _ := s.Holding(o.ID)
		if _, used := s.Room(); used != before || h.Held.Count() != 0 {
			t.Errorf("%s body left something", name)
		}
	}
	put(t, s, p, 0)
	Check(t, s, p, 0)
}

func testDead(t *testing.T, s holder.Store) {
	o := NewOwner(4, 17, 1, 3)
	admit(t, s, o, 0, 1)
	for n := range uint16(4) {
		put(t, s, o.Pack(t, n), 0)
	}
	_, before := s.Room()
	h := admit(t, s, o, 0, 3, Dead(1, 2))
	if h.Held.Count() != 2 || h.Held.Has(1) || h.Lease.Number != 3 {
		t.Errorf("after the lease: %+v", h)
	}
	if _, used := s.Room(); used > before-2*int64(h.ShardSize()) {
		t.Errorf("%d of %d bytes are still taken", used, before)
	}
	h = admit(t, s, o, 0, 2, Dead(0)) // an older one, that knows of another
	if h.Lease.Number != 3 || !h.Dead.Has(0) || !h.Dead.Has(1) || h.Held.Count() != 1 {
		t.Errorf("after the older lease: %+v", h)
	}
	p := o.Pack(t, 1)
	if err := s.PutShard(&p.Manifest, p.Word, 0, bytes.NewReader(p.Shards[0])); !errors.Is(err, group.ErrInvalid) {
		t.Errorf("a dead pack: %v", err)
	}
	if err := s.WriteSlice(io.Discard, o.ID, 1, 0, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a dead pack is still read: %v", err)
	}
	Check(t, s, o.Pack(t, 3), 0)
}

func testLeases(t *testing.T, s holder.Store) {
	if _, ok := s.Holding(group.ID{1}); ok || len(s.Holdings()) != 0 {
		t.Error("an empty store holds something")
	}
	o := NewOwner(5, 17, 1, 3)
	l, word := o.Lease(5, Until)
	if _, err := s.Admit(l, word, 1, group.PeerKey{}); err != nil {
		t.Fatal(err)
	}
	older, olderWord := o.Lease(4, Until+10)
	h, err := s.Admit(older, olderWord, 1, group.PeerKey{})
	if err != nil || h.Lease.Number != 5 || !bytes.Equal(h.Word, word) || h.Last != Until+10 {
		t.Errorf("after an older lease: %+v, %v", h, err)
	}
	if ids := s.Holdings(); len(ids) != 1 || ids[0] != o.ID {
		t.Errorf("holdings are %v", ids)
	}
	if err := s.Drop(o.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(o.ID); err != nil {
		t.Errorf("drop again: %v", err)
	}
	if _, ok := s.Holding(o.ID); ok || len(s.Holdings()) != 0 {
		t.Error("the group is still there")
	}
}

func testSlots(t *testing.T, s holder.Store) {
	o := NewOwner(6, 17, 1, 3)
	admit(t, s, o, 1, 1)
	if h := admit(t, s, o, 2, 2); h.Slot != 2 { // nothing is held: the slot may change
		t.Errorf("slot is %d", h.Slot)
	}
	put(t, s, o.Pack(t, 0), 1) // the first shard decides
	if h, _ := s.Holding(o.ID); h.Slot != 1 {
		t.Errorf("slot is %d", h.Slot)
	}
	if err := Clear(s, o.ID); err != nil {
		t.Fatal(err)
	}
	put(t, s, o.Pack(t, 0), 2)
	l, word := o.Lease(3, Until)
	if _, err := s.Admit(l, word, 1, group.PeerKey{}); !errors.Is(err, group.ErrInvalid) {
		t.Errorf("another slot: %v", err)
	}
	Check(t, s, o.Pack(t, 0), 2)
}

// Clear has a store delete what it has of a group, and keep the account.
func Clear(s holder.Store, id group.ID) error {
	_, err := s.Release(group.Release{Group: id, Number: math.MaxUint64, Packs: group.AllPacks})
	return err
}

func testRelease(t *testing.T, s holder.Store) {
	o := NewOwner(7, 17, 1, 2)
	_, before := s.Room()
	admit(t, s, o, 0, 5, Dead(9))
	put(t, s, o.Pack(t, 0), 0)
	put(t, s, o.Pack(t, 1), 0)
	for _, number := range []uint64{0, 4, 5} {
		if _, err := s.Release(group.Release{Group: o.ID, Number: number, Packs: group.AllPacks}); !errors.Is(err, group.ErrInvalid) {
			t.Errorf("release %d of who has lease 5: %v", number, err)
		}
	}
	Check(t, s, o.Pack(t, 1), 0)
	seen := group.Bitmap{}
	seen.Add(0)
	seen.Add(200)
	h, err := s.Release(group.Release{Group: o.ID, Number: 6, Packs: seen})
	if err != nil || h.Held.Count() != 1 || !h.Held.Has(1) {
		t.Errorf("release of one of two: %+v, %v", h, err)
	}
	Check(t, s, o.Pack(t, 1), 0)
	h, err = s.Release(group.Release{Group: o.ID, Number: 6, Packs: group.AllPacks})
	if err != nil || h.Held.Count() != 0 {
		t.Errorf("release: %+v, %v", h, err)
	}
	h, ok := s.Holding(o.ID)
	if _, used := s.Room(); !ok || h.Held.Count() != 0 || !h.Dead.Has(9) || used > before+16<<10 {
		t.Errorf("after release: %+v, %v, %d bytes", h, ok, used)
	}
	if err := Clear(s, group.ID{1}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("release of nothing: %v", err)
	}

	// It is given another slot; the old release says nothing to it any more.
	admit(t, s, o, 1, 6)
	put(t, s, o.Pack(t, 0), 1)
	if _, err := s.Release(group.Release{Group: o.ID, Number: 6, Packs: group.AllPacks}); !errors.Is(err, group.ErrInvalid) {
		t.Errorf("an old release: %v", err)
	}
	Check(t, s, o.Pack(t, 0), 1)
}

func testManifests(t *testing.T, s holder.Store) {
	o := NewOwner(8, 17, 2, 3)
	admit(t, s, o, 1, 1)
	for n := range uint16(3) {
		p := o.Pack(t, n)
		put(t, s, p, 1)
		if w, err := s.Manifest(o.ID, n); err != nil || !bytes.Equal(w, p.Word) {
			t.Errorf("manifest %d: %v", n, err)
		}
	}
	// The owner signs another pack under a number that is taken.
	p := NewOwner(8, 17, 2, 3)
	p.seed = 99
	twin := p.Pack(t, 1)
	if err := s.PutShard(&twin.Manifest, twin.Word, 1, bytes.NewReader(twin.Shards[1])); !errors.Is(err, group.ErrInvalid) {
		t.Errorf("a second pack of the same number: %v", err)
	}
	Check(t, s, o.Pack(t, 1), 1)
}

func testRecords(t *testing.T, s holder.Store) {
	r, word := Record(1, 1, Until, 500)
	key := r.Key()
	if _, _, err := s.Record(key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent record: %v", err)
	}
	_, before := s.Room()
	if err := s.PutRecord(key, word, group.PeerKey{1}); err != nil {
		t.Fatal(err)
	}
	if got, from, err := s.Record(key); err != nil || !bytes.Equal(got, word) || from != (group.PeerKey{1}) {
		t.Errorf("record: %v from %v", err, from)
	}
	_, word2 := Record(1, 2, Until, 600)
	if err := s.PutRecord(key, word2, group.PeerKey{2}); err != nil {
		t.Fatal(err)
	}
	if got, from, err := s.Record(key); err != nil || !bytes.Equal(got, word2) || from != (group.PeerKey{2}) {
		t.Errorf("second record: %v from %v", err, from)
	}
	if keys := s.Records(); len(keys) != 1 || keys[0] != key {
		t.Errorf("records are %v", keys)
	}
	if err := s.DropRecord(key); err != nil {
		t.Fatal(err)
	}
	if err := s.DropRecord(key); err != nil {
		t.Errorf("drop again: %v", err)
	}
	if _, used := s.Room(); used != before || len(s.Records()) != 0 {
		t.Errorf("%d bytes are still taken", used-before)
	}
}

// testVerify looks at all shards, none of which is damaged; and at none.
func testVerify(t *testing.T, s holder.Store) {
	o := NewOwner(10, 18, 2, 3)
	admit(t, s, o, 2, 1)
	for n := range uint16(3) {
		put(t, s, o.Pack(t, n), 2)
		if err := s.Verify(o.ID, n); err != nil {
			t.Errorf("pack %d: %v", n, err)
		}
	}
	if err := s.VerifyLease(o.ID); err != nil {
		t.Errorf("lease: %v", err)
	}
	for _, err := range []error{s.Verify(o.ID, 9), s.Verify(group.ID{9}, 0)} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("absent shard: %v", err)
		}
	}
	if err := s.VerifyLease(group.ID{9}); err != nil {
		t.Errorf("no lease: %v", err)
	}
	Check(t, s, o.Pack(t, 1), 2)
}

// testFirst brings shards of several slots of a group at the same time, to a
// store that has none of it: one slot wins, and keeps what was stored.
func testFirst(t *testing.T, s holder.Store) {
	o := NewOwner(11, 17, 1, 3)
	admit(t, s, o, 0, 1)
	p := o.Pack(t, 0)
	var stored [3]atomic.Bool
	var wg sync.WaitGroup
	for i := range 12 {
		slot := uint8(i % 3)
		wg.Go(func() {
			err := s.PutShard(&p.Manifest, p.Word, slot, bytes.NewReader(p.Shards[slot]))
			if err != nil && !errors.Is(err, group.ErrInvalid) {
				t.Error(err)
			}
			if err == nil {
				stored[slot].Store(true)
			}
			l, word := o.Lease(uint64(2+i), Until)
			if _, err := s.Admit(l, word, slot, group.PeerKey{}); err != nil && !errors.Is(err, group.ErrInvalid) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h, _ := s.Holding(o.ID)
	if h.Held.Count() != 1 {
		t.Fatalf("%d shards", h.Held.Count())
	}
	for slot := range uint8(3) {
		if stored[slot].Load() != (slot == h.Slot) {
			t.Errorf("slot %d was stored: %v; the group is in slot %d", slot, stored[slot].Load(), h.Slot)
		}
	}
	Check(t, s, p, h.Slot)
}

// testRaces brings the same packs from many sides while leases come and kill
// some of them.
func testRaces(t *testing.T, s holder.Store) {
	o := NewOwner(9, 17, 1, 2)
	admit(t, s, o, 0, 1)
	var packs []Pack
	for n := range uint16(6) {
		packs = append(packs, o.Pack(t, n))
	}
	var wg sync.WaitGroup
	for range 4 {
		for _, p := range packs {
			wg.Go(func() {
				err := s.PutShard(&p.Manifest, p.Word, 0, bytes.NewReader(p.Shards[0]))
				if err != nil && !(p.Manifest.Number < 3 && errors.Is(err, group.ErrInvalid)) {
					t.Errorf("pack %d: %v", p.Manifest.Number, err)
				}
			})
		}
	}
	for n := range uint16(3) {
		wg.Go(func() {
			l, word := o.Lease(uint64(2+n), Until, Dead(n))
			if _, err := s.Admit(l, word, 0, group.PeerKey{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h, _ := s.Holding(o.ID)
	if h.Held.Count() != 3 || h.Dead.Count() != 3 || h.Held.Has(0) {
		t.Errorf("held %d, dead %d", h.Held.Count(), h.Dead.Count())
	}
	for _, p := range packs[3:] {
		Check(t, s, p, 0)
	}
}

func testMany(t *testing.T, s holder.Store) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			o := NewOwner(uint64(100+i), 16, 1, 2)
			l, word := o.Lease(1, Until)
			if _, err := s.Admit(l, word, uint8(i%2), group.PeerKey{}); err != nil {
				t.Error(err)
				return
			}
			for n := range uint16(5) {
				p := o.Pack(t, n)
				if err := s.PutShard(&p.Manifest, p.Word, uint8(i%2), bytes.NewReader(p.Shards[i%2])); err != nil {
					t.Error(fmt.Errorf("group %d: %w", i, err))
				}
			}
		})
	}
	wg.Wait()
	if n := len(s.Holdings()); n != 8 {
		t.Errorf("%d groups", n)
	}
	for i := range 8 {
		Check(t, s, NewOwner(uint64(100+i), 16, 1, 2).Pack(t, 4), uint8(i%2))
	}
}
