// Package holder is the serving side of the shard protocol: a peer that keeps
// shards and slot records for others.
//
// A Holder believes nobody. It takes a group only with a lease that the group's
// key signed, a shard only with a manifest that the same key signed, for the
// slot that it has, within the lease's count of packs and budget of bytes, and
// only when the bytes have the manifest's root. A pack that any lease has called
// dead is deleted and never taken again. Statements say what is durable on its
// disk and are signed by the peer's own key.
//
// What others can make it spend is bounded: requests at once, in total and for
// each peer; time for each exchange and each stretch of it; bytes on disk by
// what it offers, counting what is still arriving; groups and records by number.
// A shard passes through half a MiB of memory at most, however large it is.
//
// As a keeper it puts each slot record in the DHT again and again, long before
// the DHT forgets it, until the record's own end; so that what an owner left
// stays findable while the owner is away. Before it puts, it asks whether there
// is a newer one, and keeps that instead.
package holder
