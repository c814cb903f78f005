package state

import (
	"encoding/binary"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/memdb"
)

// overlay is a set of changes on their way into leveldb.
type overlay struct {
	mem *memdb.DB
	seq uint64 // its last record
}

// each calls put and remove for the rows of an overlay, and put for the number
// of its last record.
func (o overlay) each(put func(k, v []byte) error, remove func(k []byte) error) error {
	it := o.mem.NewIterator(nil)
	defer it.Release()
	for it.Next() {
		var err error
		if v := it.Value(); v[0] == present {
			err = put(it.Key(), v[1:])
		} else {
			err = remove(it.Key())
		}
		if err != nil {
			return err
		}
	}
	return put(seqKey, binary.BigEndian.AppendUint64(nil, o.seq))
}

// writeBuffer is how many bytes leveldb gathers before it writes a table.
func (s *Store) writeBuffer() int { return int(min(4<<20, s.opt.OverlaySize)) }

// writeOverlay writes an overlay into leveldb, in one atomic write.
func (s *Store) writeOverlay(o overlay) error {
	var err error
	if o.mem.Size() > s.writeBuffer() {
		err = s.writeTables(o)
	} else {
		err = s.writeBatch(o)
	}
	if isFull(err) {
		return err
	}
	return s.indexError(err)
}

func (s *Store) writeBatch(o overlay) error {
	batch := leveldb.MakeBatch(o.mem.Size() + o.mem.Len()*8)
	err := o.each(
		func(k, v []byte) error { batch.Put(k, v); return nil },
		func(k []byte) error { batch.Delete(k); return nil })
	if err != nil {
		return err
	}
	return s.db.Write(batch, nil)
}

// writeTables writes an overlay straight into tables, past leveldb's log and
// without another copy in memory.
func (s *Store) writeTables(o overlay) error {
	return s.db.transaction(func(tr *leveldb.Transaction) error {
		return o.each(
			func(k, v []byte) error { return tr.Put(k, v, nil) },
			func(k []byte) error { return tr.Delete(k, nil) })
	})
}
