package hosted_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"skep/cache/hosted"
	"skep/chunker/group"
	"skep/test/storetest"
)

// A history is what several workers do to a store, each with two groups and
// some records of its own, one thing after the other. What a worker does as its
// n-th thing follows from its number and n alone, so that whoever knows how far
// it came knows what it did.
const (
	workers      = 3
	groupsEach   = 2
	recordsEach  = 2
	historySlots = 2
)

// step is one thing that a worker does.
type step struct {
	worker, n int
}

// kindOf are the things done, in turn: mostly shards are put.
var kindOf = []string{"admit", "put", "put", "record", "put", "put", "admit", "put", "verify", "put", "put", "record", "put", "clear", "put", "admit", "put", "put", "drop"}

func (s step) kind() string { return kindOf[s.n%len(kindOf)] }

// turn is how often all kinds were done before.
func (s step) turn() int { return s.n / len(kindOf) }

func (s step) owner() *storetest.Owner {
	return storetest.NewOwner(uint64(1000+s.worker*groupsEach+s.turn()%groupsEach), 16, 1, historySlots)
}

// slot of the shards of a turn. It changes from turn to turn, as a drop comes
// in between.
func (s step) slot() uint8 { return uint8(s.turn()/groupsEach) % historySlots }

// pack that is put: some are put twice.
func (s step) pack() uint16 { return uint16((s.turn()*8 + s.n%len(kindOf)/2) % group.MaxPacks) }

// lease is a new one, that calls the packs of some steps before dead.
func (s step) lease() (group.Lease, []byte) {
	before := step{s.worker, max(0, s.n-3)}.pack()
	return s.owner().Lease(uint64(s.n+1), storetest.Until, storetest.Dead(before))
}

func (s step) record() (group.SlotRecord, []byte) {
	return storetest.Record(uint64(2000+s.worker*recordsEach+s.turn()%recordsEach), uint64(s.n+1), storetest.Until, 300)
}

// do does the step.
func (s step) do(store *hosted.Store) error {
	o := s.owner()
	switch s.kind() {
	case "admit":
		l, word := s.lease()
		_, err := store.Admit(l, word, s.slot(), group.PeerKey{byte(s.worker)})
		return err
	case "put":
		p, err := o.MakePack(s.pack())
		if err != nil {
			return err
		}
		return store.PutShard(&p.Manifest, p.Word, s.slot(), bytes.NewReader(p.Shards[s.slot()]))
	case "record":
		r, word := s.record()
		return store.PutRecord(r.Key(), word, group.PeerKey{byte(s.worker)})
	case "verify":
		return errors.Join(store.VerifyLease(o.ID), store.Verify(o.ID, s.pack()))
	case "clear":
		if s.turn()%3 != 2 {
			return nil
		}
		if err := storetest.Clear(store, o.ID); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, group.ErrInvalid) {
			return err
		}
		return nil // there was nothing, or no lease
	case "drop":
		return store.Drop(o.ID)
	}
	panic("no such kind")
}

// knowledge is what is known of a store by what it acknowledged.
type knowledge struct {
	groups  map[group.ID]*groupKnowledge
	records map[group.SlotKey]*recordKnowledge
}

type groupKnowledge struct {
	owner      *storetest.Owner
	lease      uint64       // the newest acknowledged; 0 when none has to be there
	dead       group.Bitmap // acknowledged
	dying      group.Bitmap // of leases that were brought, but not acknowledged
	held       group.Bitmap // acknowledged, and not deleted
	mayHeld    group.Bitmap // brought, and not surely deleted
	slot       uint8
	slotIsSure bool
}

type recordKnowledge struct{ acked, brought uint64 }

func newKnowledge() *knowledge {
	return &knowledge{groups: map[group.ID]*groupKnowledge{}, records: map[group.SlotKey]*recordKnowledge{}}
}

func (k *knowledge) group(s step) *groupKnowledge {
	o := s.owner()
	g := k.groups[o.ID]
	if g == nil {
		g = &groupKnowledge{owner: o}
		k.groups[o.ID] = g
	}
	return g
}

// begun takes in that a step was begun.
func (k *knowledge) begun(s step) {
	switch s.kind() {
	case "admit":
		l, _ := s.lease()
		g := k.group(s)
		g.dying.Union(l.Dead)
		g.slotIsSure = false
	case "put":
		g := k.group(s)
		g.mayHeld.Add(s.pack())
		g.slotIsSure = false
	case "record":
		r, _ := s.record()
		k.record(r.Key()).brought = r.Number
	case "clear":
		k.group(s).held = group.Bitmap{}
	case "drop":
		g := k.group(s)
		g.held, g.dead, g.lease = group.Bitmap{}, group.Bitmap{}, 0
	}
}

func (k *knowledge) record(key group.SlotKey) *recordKnowledge {
	if k.records[key] == nil {
		k.records[key] = &recordKnowledge{}
	}
	return k.records[key]
}

// acknowledged takes in that a step was done.
func (k *knowledge) acknowledged(s step) {
	switch s.kind() {
	case "admit":
		l, _ := s.lease()
		g := k.group(s)
		g.lease = l.Number
		g.dead.Union(l.Dead)
		g.slot, g.slotIsSure = s.slot(), true
	case "put":
		g := k.group(s)
		g.held.Add(s.pack())
		g.slot, g.slotIsSure = s.slot(), true
	case "record":
		r, _ := s.record()
		k.record(r.Key()).acked = r.Number
	case "drop": // its shards are flushed away before its lease is
		g := k.group(s)
		g.mayHeld, g.dying = group.Bitmap{}, group.Bitmap{}
	}
}

// check compares a store that was opened after the end with what is known.
func (k *knowledge) check(t *testing.T, dir string, s *hosted.Store) {
	t.Helper()
	for id, g := range k.groups {
		h, ok := s.Holding(id)
		if g.lease > 0 && (!ok || h.Word == nil || h.Lease.Number < g.lease) {
			t.Errorf("lease %d was acknowledged, there is %d (%v)", g.lease, h.Lease.Number, ok)
		}
		if !h.Dead.Contains(g.dead) {
			t.Errorf("forgot that packs are dead")
		}
		if h.Word == nil && h.Held.Count() > 0 {
			t.Error("shards without the lease that was there before them")
		}
		if g.slotIsSure && g.held.Count() > 0 && h.Slot != g.slot {
			t.Errorf("in slot %d, not %d", h.Slot, g.slot)
		}
		for p := range uint16(group.MaxPacks) {
			k.checkPack(t, s, g, &h, p)
		}
	}
	for key, r := range k.records {
		word, _, err := s.Record(key)
		got, perr := group.ParseSlotRecord(word)
		if r.acked > 0 && (err != nil || perr != nil || got.Number < r.acked) {
			t.Errorf("record %d was acknowledged, there is %d (%v)", r.acked, got.Number, err)
		}
		if err == nil && got.Number > r.brought {
			t.Errorf("record %d was never brought", got.Number)
		}
	}
	if _, used := s.Room(); used != onDisk(t, dir) {
		t.Errorf("counts %d bytes, there are %d", used, onDisk(t, dir))
	}
}

func (k *knowledge) checkPack(t *testing.T, s *hosted.Store, g *groupKnowledge, h *group.Holding, p uint16) {
	t.Helper()
	held := h.Held.Has(p)
	switch {
	case g.held.Has(p) && !g.dead.Has(p) && !g.dying.Has(p) && !held:
		t.Errorf("pack %d was acknowledged and is gone", p)
	case held && g.dead.Has(p):
		t.Errorf("pack %d is dead and was there again", p)
	case held && !g.mayHeld.Has(p):
		t.Errorf("pack %d is claimed and was not brought", p)
	}
	if held {
		storetest.Check(t, s, g.owner.Pack(t, p), h.Slot)
		if after, _ := s.Holding(h.ID); !after.Held.Has(p) {
			t.Errorf("pack %d was claimed and is not whole", p)
		}
	}
	if g.dead.Has(p) {
		pack := g.owner.Pack(t, p)
		err := s.PutShard(&pack.Manifest, pack.Word, h.Slot, bytes.NewReader(pack.Shards[h.Slot]))
		if !errors.Is(err, group.ErrInvalid) {
			t.Errorf("dead pack %d was taken again: %v", p, err)
		}
	}
}

// onDisk is what the files of a store take, as its offer counts them.
func onDisk(t *testing.T, dir string) (sum int64) {
	t.Helper()
	groups, _ := filepath.Glob(filepath.Join(dir, "groups", "*"))
	sum = int64(len(groups)) * 8192
	for _, pattern := range []string{"groups/*/[0-9]*", "records/*"} {
		files, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, f := range files {
			st, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			sum += st.Size()
		}
	}
	return sum
}

// expected reports whether a step may end so.
func (s step) expected(err error) error {
	if err == nil {
		return nil
	}
	refusable := s.kind() == "put" && (errors.Is(err, group.ErrInvalid) || errors.Is(err, fs.ErrNotExist)) ||
		s.kind() == "verify" && errors.Is(err, fs.ErrNotExist) ||
		s.kind() == "admit" && errors.Is(err, group.ErrInvalid)
	if refusable {
		return nil
	}
	return fmt.Errorf("worker %d, step %d, %s: %w", s.worker, s.n, s.kind(), err)
}
