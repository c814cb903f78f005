package group

import (
	"bytes"

	"skep/chunker/erasure"
)

// Holding is a holder's own account of one group. Only Lease, through Word, is
// anybody's signed word; the rest is what the holder's disk says.
type Holding struct {
	ID     ID
	Slot   uint8
	Class  erasure.Class  // of all packs of the group; 0 before a first shard came
	Coding erasure.Coding // likewise
	Held   Bitmap         // packs whose shards are durable here
	Dead   Bitmap         // packs that any lease seen calls dead
	Lease  Lease          // the newest seen
	Word   []byte         // its signed form, nil when there is none; not to be altered
	Last   int64          // Unix seconds: the latest end of any lease seen, until when the group is wanted
	From   PeerKey        // who brought the first lease
}

// ShardSize is the size of each shard of the group, 0 before a first one came.
func (h *Holding) ShardSize() int {
	if h.Class == 0 {
		return 0
	}
	return h.Coding.ShardSize(h.Class)
}

// Over reports whether nothing can come of the group any more: all numbers that
// a pack of it can have are dead.
func (h *Holding) Over() bool { return h.Dead == AllPacks }

// Bytes is the size of all shards held, as the lease's budget counts them.
func (h *Holding) Bytes() int64 { return int64(h.Held.Count()) * int64(h.ShardSize()) }

// Merge returns the account after one more lease was seen: the higher number
// counts, a dead pack stays dead. At equal numbers the later end counts, then
// the one whose signed form sorts higher, so that all holders agree.
func (h Holding) Merge(l Lease, word []byte) Holding {
	h.Dead.Union(l.Dead)
	h.Last = max(h.Last, l.Until)
	if h.Word == nil || newer(l, word, h.Lease, h.Word) {
		h.Lease, h.Word = l, word
	}
	return h
}

func newer(a Lease, aw []byte, b Lease, bw []byte) bool {
	if a.Number != b.Number {
		return a.Number > b.Number
	}
	if a.Until != b.Until {
		return a.Until > b.Until
	}
	return string(aw) > string(bw)
}

// Replaces reports whether who keeps slot record o is to keep r, of the same slot,
// in its place: one of a higher number, or the same value for longer. Of the values
// that come under one number the first one stays, so that a writer who does not know
// of it learns that there is one.
func (r *SlotRecord) Replaces(o *SlotRecord) bool {
	if r.Number != o.Number {
		return r.Number > o.Number
	}
	return r.Until > o.Until && bytes.Equal(r.Value, o.Value)
}

// Newer reports whether slot record r counts more than o where nobody knows which
// came first: by its number, then by its end, then by its value, so that all who
// compare agree.
func (r *SlotRecord) Newer(o *SlotRecord) bool {
	if r.Number != o.Number {
		return r.Number > o.Number
	}
	if r.Until != o.Until {
		return r.Until > o.Until
	}
	return string(r.Value) > string(o.Value)
}
