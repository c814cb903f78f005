// Package state keeps the ordered tables of this device: keys and values of
// bytes, changed in batches.
//
// A batch is one journal record; when Apply returns, it survives the end of the
// process, and after Sync power loss. In memory it goes into an overlay, which
// is moved into leveldb now and then together with the sequence number up to
// which leveldb is complete. leveldb is an index: when it is damaged, or ends
// before the journal begins, it is thrown away and Open replays what the journal
// holds; the caller, told so by Rebuilt, has the rest. It never has what the journal
// has not on the disk: a journal that ends before the index has lost its end, and is
// refused as damaged.
//
// A Cut is an unchanging view of the tables as of one instant: the overlay is
// rotated at that instant, and a leveldb snapshot is taken as soon as it has
// been moved.
package state
