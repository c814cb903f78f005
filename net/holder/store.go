package holder

import (
	"io"

	"skep/chunker/erasure"
	"skep/chunker/group"
)

// Store is the disk of a holder. Implementations are safe for concurrent use;
// what a call has stored is durable when it returns. cache/hosted is one, and
// test/storetest has the suite that all pass.
//
// Across the layers' border errors are those of the standard library and of
// chunker: fs.ErrNotExist for what is not held, group.ErrInvalid for what may
// not be stored, erasure.ErrProof for a shard without its root,
// syscall.ENOSPC for a full disk.
type Store interface {
	Room
	Leases
	Shards
	Records
}

// Room is how much the store may take.
type Room interface {
	// Room returns how many bytes are offered to others, and how many are taken.
	Room() (offered, used int64)
}

// Leases are the groups a store is in.
type Leases interface {
	// Holdings returns the ids of all groups, in no order.
	Holdings() []group.ID
	// Holding returns the account of a group, or false.
	Holding(id group.ID) (group.Holding, bool)
	// Settle makes sure that the shards which Holding tells of are there after a power cut.
	Settle(id group.ID) error
	// Admit merges a checked lease, given parsed and signed, into the account
	// of its group, which it makes when it is new, with from as who brought it,
	// and deletes the shards of packs that are dead now. A group that has shards
	// in another slot gives group.ErrInvalid; one without moves to this slot.
	Admit(l group.Lease, word []byte, slot uint8, from group.PeerKey) (group.Holding, error)
	// VerifyLease makes sure that the account of a group is on the disk as it
	// is in memory; one of which the lease could not be read is read again.
	VerifyLease(id group.ID) error
	// Release deletes the shards that it names of a group that is held by leases of
	// lower numbers alone, and keeps the account, which it returns. It gives fs.ErrNotExist when
	// the store is not in the group, group.ErrInvalid when it has a newer lease, or
	// none.
	Release(r group.Release) (group.Holding, error)
	// Drop deletes all of a group.
	Drop(id group.ID) error
}

// Shards are the shards of a store.
type Shards interface {
	// PutShard reads a shard of m.ShardSize() bytes and stores it; the first of
	// a group decides its slot. It keeps nothing and returns fs.ErrNotExist when
	// the group has no lease, group.ErrInvalid when the pack is dead, slot, class
	// or coding differ from those of the shards that are there, or another
	// manifest is there under its number,
	// erasure.ErrProof when the bytes do not have the root, syscall.ENOSPC when
	// the disk is full, or the error of shard. A shard that is there already is
	// not read.
	PutShard(m *group.Manifest, word []byte, slot uint8, shard io.Reader) error
	// Manifest returns the signed manifest of a pack that is held.
	Manifest(id group.ID, number uint16) ([]byte, error)
	// WriteSlice writes the Bao slice of a range of a shard. A shard found to
	// be damaged is removed and gives fs.ErrNotExist, also when part of the
	// slice was written.
	WriteSlice(w io.Writer, id group.ID, number uint16, offset, length int) error
	// WriteRange writes the bytes of a range alone, unchecked: the asker can
	// tell, and asks for a slice if they are wrong. Its errors are those of
	// WriteSlice; nothing is written before the shard is known to be there.
	WriteRange(w io.Writer, id group.ID, number uint16, offset, length int) error
	// WriteSamples writes the answer to an audit, as erasure.WriteSamples does,
	// with errors as WriteSlice has them.
	WriteSamples(w io.Writer, id group.ID, number uint16, nonce erasure.Nonce, count int) error
	// Verify compares all of a shard with its root, as it is on the disk now. A
	// damaged one is removed and gives fs.ErrNotExist.
	Verify(id group.ID, number uint16) error
}

// Records are the slot records of a store.
type Records interface {
	// PutRecord keeps a checked record, given in its signed form, in the place
	// of the one under its key; from brought it.
	PutRecord(key group.SlotKey, word []byte, from group.PeerKey) error
	// Record returns a record and who brought it, or fs.ErrNotExist.
	Record(key group.SlotKey) (word []byte, from group.PeerKey, err error)
	// Records returns the keys of all records, in no order.
	Records() []group.SlotKey
	// DropRecord forgets a record.
	DropRecord(key group.SlotKey) error
}
