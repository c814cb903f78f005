package tree

import (
	"encoding/binary"
	"errors"
	"fmt"

	"skep/chunker/link"
)

// The tables, by the first byte of their keys.
const (
	tableInode   = 'i' // inode → row
	tableEntry   = 'e' // directory, name → inode, type, cookie
	tableCookie  = 'c' // directory, cookie → inode, name
	tableInline  = 'd' // inode → content
	tableLeft    = 'l' // inode without a name whose content row is still there
	tableXattrs  = 'x' // inode → attributes
	tableMark    = 'm' // directory, name → epoch
	tableRanges  = 'r' // inode → valid and dirty ranges of its backing file
	tableAdded   = 'a' // inode, number → a write that the ranges do not count in yet
	tableWriting = 'w' // inode: open for writing
	tablePin     = 'q' // inode: pinned to this device
	tableBacking = 'n' // backing number → inode
	tableSingle  = 'h' // name → value
)

// What is special about an inode.
const (
	flagInline    = 1 << iota // content is in the inline row (or empty)
	flagBacking               // content is in a backing file
	flagPartial               // … but not all of it: see the ranges row
	flagDirty                 // content changed since the newest commit that has it
	flagLoaded                // a directory whose entries are in the tables
	flagMulti                 // has or had several links: its record is in the table of links
	flagUnread                // several links: the rest of the row is still in the commit
	flagCommitted             // a file that some commit has taken: content and contentSize tell of that
)

// row is an inode as the tables keep it.
type row struct {
	flags                      uint32
	mode, nlink, uid, gid      uint32
	rdev                       uint32
	size                       int64
	atime, mtime, ctime, btime Time
	parent                     Ino // of directories and singly linked files; else the last known
	name                       string
	backing                    uint64
	cookie                     uint64    // a directory's next cookie
	content                    link.Link // in the newest commit that has it
	contentSize                int64
	dirtyEpoch                 uint64 // in which the content changed last
	local                      int64  // bytes that the backing file takes on the disk, as counted last
	room                       int64  // bytes that the whole content took when it was here; 0 if it never was
}

const rowVersion = 2

var errRow = errors.New("malformed inode row")

const (
	modeType = 0o170000
	modeDir  = 0o040000
	modeReg  = 0o100000
	modeLnk  = 0o120000
	modeSUID = 0o4000
	modeSGID = 0o2000
	modeXGrp = 0o0010
)

func (r *row) isDir() bool       { return r.mode&modeType == modeDir }
func (r *row) isFile() bool      { return r.mode&modeType == modeReg }
func (r *row) has(f uint32) bool { return r.flags&f != 0 }

func (r *row) encode() []byte { return r.append(make([]byte, 0, 160+len(r.name))) }

// append writes the row behind b.
func (r *row) append(b []byte) []byte {
	b = append(b, rowVersion)
	for _, v := range [...]uint32{r.flags, r.mode, r.nlink, r.uid, r.gid, r.rdev} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	b = binary.AppendUvarint(b, uint64(r.size))
	for _, t := range [...]Time{r.atime, r.mtime, r.ctime, r.btime} {
		b = binary.AppendVarint(b, t.Sec)
		b = binary.AppendUvarint(b, uint64(t.Nsec))
	}
	for _, v := range [...]uint64{uint64(r.parent), r.backing, r.cookie, uint64(r.contentSize), r.dirtyEpoch,
		uint64(r.local), uint64(r.room)} {
		b = binary.AppendUvarint(b, v)
	}
	if r.content.IsZero() {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		b = r.content.Append(b)
	}
	return append(b, r.name...)
}

func decodeRow(b []byte) (row, error) {
	var r row
	if len(b) == 0 || b[0] != rowVersion {
		return r, errRow
	}
	d := rowDecoder{b: b[1:]}
	for _, p := range [...]*uint32{&r.flags, &r.mode, &r.nlink, &r.uid, &r.gid, &r.rdev} {
		*p = uint32(d.uvarint())
	}
	r.size = int64(d.uvarint())
	for _, p := range [...]*Time{&r.atime, &r.mtime, &r.ctime, &r.btime} {
		p.Sec = d.varint()
		p.Nsec = uint32(d.uvarint())
	}
	r.parent = Ino(d.uvarint())
	r.backing, r.cookie = d.uvarint(), d.uvarint()
	r.contentSize, r.dirtyEpoch = int64(d.uvarint()), d.uvarint()
	r.local, r.room = int64(d.uvarint()), int64(d.uvarint())
	if has := d.take(1); len(has) == 1 && has[0] == 1 {
		if err := r.content.UnmarshalBinary(d.take(link.EncodedSize)); err != nil {
			return r, fmt.Errorf("%w: %w", errRow, err)
		}
	}
	if d.bad || r.size < 0 || r.local < 0 || r.room < 0 {
		return r, errRow
	}
	r.name = string(d.b)
	return r, nil
}

type rowDecoder struct {
	b   []byte
	bad bool
}

func (d *rowDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *rowDecoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *rowDecoder) take(n int) []byte {
	if len(d.b) < n {
		d.bad, d.b = true, nil
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

// entry is what a directory's row says of a name.
type entry struct {
	ino    Ino
	typ    uint32 // type bits of the mode
	cookie uint64
}

func (e entry) encode() []byte { return e.append(nil) }

// append writes the entry behind b.
func (e entry) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(e.ino))
	b = binary.AppendUvarint(b, uint64(e.typ>>12))
	return binary.AppendUvarint(b, e.cookie)
}

func decodeEntry(b []byte) (entry, error) {
	d := rowDecoder{b: b}
	e := entry{ino: Ino(d.uvarint()), typ: uint32(d.uvarint()) << 12, cookie: d.uvarint()}
	if d.bad || len(d.b) != 0 {
		return e, errors.New("malformed entry row")
	}
	return e, nil
}

func key(table byte, ino Ino) []byte { return appendKey(nil, table, ino) }

func appendKey(b []byte, table byte, ino Ino) []byte {
	return binary.BigEndian.AppendUint64(append(b, table), uint64(ino))
}

func entryKey(dir Ino, name string) []byte { return append(key(tableEntry, dir), name...) }

// entryMark is the key of the mark that an inode's record changed, where that lies;
// in.mu is held.
func (in *inode) entryMark() []byte {
	if in.row.has(flagMulti) {
		return markKey(Links, linkName(in.ino))
	}
	return markKey(in.row.parent, in.row.name)
}

func markKey(dir Ino, name string) []byte { return append(key(tableMark, dir), name...) }
func cookieKey(dir Ino, cookie uint64) []byte {
	return binary.BigEndian.AppendUint64(key(tableCookie, dir), cookie)
}
func backingKey(n uint64) []byte   { return key(tableBacking, Ino(n)) }
func singleKey(name string) []byte { return append([]byte{tableSingle}, name...) }
func uint64Value(v uint64) []byte  { return binary.BigEndian.AppendUint64(nil, v) }
func valueUint64(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
