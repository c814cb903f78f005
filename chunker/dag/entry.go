package dag

import (
	"context"
	"fmt"

	"skep/chunker/link"
)

// entry is an entry of a directory: a stored name, and a link that is an inode
// record or leads to one. The link stays in binary form, so that an edit takes
// over the entries that it does not touch as they are.
type entry struct {
	name  string
	cid   []byte
	tsize uint64 // bytes of the record's block, 0 if it has none
}

// putEntry makes the entry of a record, writing the record's block if it needs
// one.
func putEntry(ctx context.Context, p Putter, stored string, n *Inode) (entry, error) {
	rec, err := n.Encode()
	if err != nil {
		return entry{}, err
	}
	if len(rec) <= maxInlineRecord {
		return entry{name: stored, cid: recordCID(rec)}, nil
	}
	var refs refSet
	refs.add(n.Content)
	l, err := p.Put(ctx, link.CBOR, rec, refs.links)
	if err != nil {
		return entry{}, fmt.Errorf("put inode record: %w", err)
	}
	return entry{name: stored, cid: cidOf(l), tsize: uint64(len(rec))}, nil
}

// decodeEntry checks name and link of an entry.
func decodeEntry(stored string, l *pbLink) (entry, error) {
	if _, err := realName(stored); err != nil {
		return entry{}, err
	}
	e := entry{name: stored, cid: l.cid, tsize: l.tsize}
	if rec, ok := inlineRecord(l.cid); ok {
		if len(rec) > maxInlineRecord || l.tsize != 0 {
			return entry{}, corrupt("entry has an inline record of %d bytes and size %d", len(rec), l.tsize)
		}
		return e, nil
	}
	sealed, err := sealedCID(l.cid)
	if err != nil {
		return entry{}, err
	}
	if sealed.Codec != link.CBOR || l.tsize <= maxInlineRecord || l.tsize > MaxRecord {
		return entry{}, corrupt("entry has a link to codec %#x of %d bytes", sealed.Codec, l.tsize)
	}
	return e, nil
}

// inline reports whether the record is in the entry itself.
func (e *entry) inline() bool { return e.tsize == 0 }

// inode reads the record of e, from its block if it has one.
func (e *entry) inode(ctx context.Context, g Getter) (Inode, error) {
	if rec, ok := inlineRecord(e.cid); ok {
		return DecodeInode(rec)
	}
	l, err := sealedCID(e.cid)
	if err != nil {
		return Inode{}, err
	}
	rec, err := g.Get(ctx, l)
	if err != nil {
		return Inode{}, fmt.Errorf("get inode record: %w", err)
	}
	if uint64(len(rec)) != e.tsize {
		return Inode{}, corrupt("%v: inode record of %d bytes, its entry says %d", l, len(rec), e.tsize)
	}
	n, err := DecodeInode(rec)
	if err != nil {
		return Inode{}, fmt.Errorf("%v: %w", l, err)
	}
	return n, nil
}

// same reports whether two entries of one name lead to the same record.
func (e *entry) same(o *entry) bool { return string(e.cid) == string(o.cid) }
