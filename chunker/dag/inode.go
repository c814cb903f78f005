package dag

import (
	"bytes"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"skep/chunker/link"
	"skep/chunker/record"
)

// Limits of an inode record.
const (
	// MaxInline is the largest content of a file that its record holds.
	MaxInline = 512
	// MaxTarget is the longest target of a symlink.
	MaxTarget = 4096
	// MaxRecord is the largest encoded record, in bytes.
	MaxRecord = 1 << 20
	// MaxXattrName is the longest name of an extended attribute.
	MaxXattrName = 255
	// MaxXattrValue is the largest value of an extended attribute.
	MaxXattrValue = 64 << 10

	// maxInlineRecord is the largest record that lies in the directory itself.
	maxInlineRecord = 1 << 10
)

// The type bits of Inode.Mode, those of st_mode on Linux.
const (
	ModeType      uint32 = 0o170000 // the mask
	ModeFIFO      uint32 = 0o010000
	ModeChar      uint32 = 0o020000
	ModeDirectory uint32 = 0o040000
	ModeBlock     uint32 = 0o060000
	ModeRegular   uint32 = 0o100000
	ModeSymlink   uint32 = 0o120000
	ModeSocket    uint32 = 0o140000
)

// Time is a moment: seconds since 1970, and nanoseconds into that second. It
// reaches as far before 1970 as after it.
type Time struct {
	Sec  int64
	Nsec uint32 // below 1e9
}

// Time converts t to the local time zone.
func (t Time) Time() time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// Inode is the record of a file, directory or other object: what stat(2) tells
// of it, its extended attributes, and where its content is.
//
// Regular files have Content or, up to MaxInline bytes, Inline; files of size 0
// have neither. Symlinks have their target in Inline, and its length in Size.
// Directories have their root in Content, unless they are empty. All others have
// no content.
type Inode struct {
	ID    uint64
	Mode  uint32 // st_mode: type and permission bits
	UID   uint32
	GID   uint32
	Nlink uint32
	Size  int64 // bytes

	Mtime Time
	Ctime Time
	Btime Time

	Rdev    uint64            // of devices
	Content link.Link         // root of the file's or directory's DAG
	Inline  []byte            // content of a tiny file, target of a symlink
	Xattrs  map[string][]byte // names are bytes, never empty

	// Linked says that this entry is one of several hard links: it has the ID and
	// the type bits of Mode alone, and the record is in the drive's table of inodes.
	Linked bool
}

// File is the content of a regular file that is not inline.
func (n *Inode) File() File { return File{Root: n.Content, Size: n.Size} }

// inodeVersion is the version of the wire form.
const inodeVersion = 1

// wireInode is the encoded form: a CBOR map with small integers as keys, from
// which everything that is zero is left out.
type wireInode struct {
	Version uint64                     `cbor:"0,keyasint"`
	ID      uint64                     `cbor:"1,keyasint,omitempty"`
	Mode    uint32                     `cbor:"2,keyasint,omitempty"`
	UID     uint32                     `cbor:"3,keyasint,omitempty"`
	GID     uint32                     `cbor:"4,keyasint,omitempty"`
	Nlink   uint32                     `cbor:"5,keyasint,omitempty"`
	Size    int64                      `cbor:"6,keyasint,omitempty"`
	Mtime   *wireTime                  `cbor:"7,keyasint,omitempty"`
	Ctime   *wireTime                  `cbor:"8,keyasint,omitempty"`
	Btime   *wireTime                  `cbor:"9,keyasint,omitempty"`
	Rdev    uint64                     `cbor:"10,keyasint,omitempty"`
	Content link.Link                  `cbor:"11,keyasint,omitzero"`
	Inline  []byte                     `cbor:"12,keyasint,omitempty"`
	Xattrs  map[cbor.ByteString][]byte `cbor:"13,keyasint,omitempty"`
	Linked  bool                       `cbor:"14,keyasint,omitempty"`
}

type wireTime struct {
	_    struct{} `cbor:",toarray"`
	Sec  int64
	Nsec uint32
}

// wire returns nil for the zero time, which is left out.
func (t Time) wire() *wireTime {
	if t == (Time{}) {
		return nil
	}
	return &wireTime{Sec: t.Sec, Nsec: t.Nsec}
}

func (t *wireTime) time() Time {
	if t == nil {
		return Time{}
	}
	return Time{Sec: t.Sec, Nsec: t.Nsec}
}

// Encode returns the record in its one canonical form, or ErrInode if it
// contradicts itself or exceeds a limit.
func (n *Inode) Encode() ([]byte, error) {
	if err := n.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInode, err)
	}
	b := n.encode()
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrInode, len(b), MaxRecord)
	}
	return b, nil
}

func (n *Inode) encode() []byte {
	w := wireInode{
		Version: inodeVersion,
		ID:      n.ID, Mode: n.Mode, UID: n.UID, GID: n.GID, Nlink: n.Nlink, Size: n.Size,
		Mtime: n.Mtime.wire(), Ctime: n.Ctime.wire(), Btime: n.Btime.wire(),
		Rdev: n.Rdev, Content: n.Content, Inline: n.Inline, Linked: n.Linked,
	}
	if len(n.Xattrs) > 0 {
		w.Xattrs = make(map[cbor.ByteString][]byte, len(n.Xattrs))
		for name, v := range n.Xattrs {
			if v == nil {
				v = []byte{} // an empty value, not CBOR null
			}
			w.Xattrs[cbor.ByteString(name)] = v
		}
	}
	return record.Encode(w)
}

// DecodeInode reads a record. Anything but the very bytes that Encode gives for
// a valid record is ErrCorrupt, or ErrVersion if a later version wrote it. The
// result does not refer to b.
func DecodeInode(b []byte) (Inode, error) {
	// A map whose first key is 0 and its value an unsigned integer: the version.
	if len(b) >= 3 && b[0]>>5 == 5 && b[1] == 0 && b[2]>>5 == 0 && b[2] != inodeVersion {
		return Inode{}, fmt.Errorf("%w: not %d", ErrVersion, inodeVersion)
	}
	var w wireInode
	if err := record.Decode(b, MaxRecord, &w); err != nil {
		return Inode{}, fmt.Errorf("%w: inode record: %w", ErrCorrupt, err)
	}
	n := w.inode()
	if err := n.check(); err != nil {
		return Inode{}, fmt.Errorf("%w: inode record: %w", ErrCorrupt, err)
	}
	if !bytes.Equal(n.encode(), b) {
		return Inode{}, corrupt("inode record is not in canonical form")
	}
	return n, nil
}

func (w *wireInode) inode() Inode {
	n := Inode{
		ID: w.ID, Mode: w.Mode, UID: w.UID, GID: w.GID, Nlink: w.Nlink, Size: w.Size,
		Mtime: w.Mtime.time(), Ctime: w.Ctime.time(), Btime: w.Btime.time(),
		Rdev: w.Rdev, Content: w.Content, Inline: w.Inline, Linked: w.Linked,
	}
	if len(w.Xattrs) > 0 {
		n.Xattrs = make(map[string][]byte, len(w.Xattrs))
		for name, v := range w.Xattrs {
			n.Xattrs[string(name)] = v
		}
	}
	return n
}

// check reports how n contradicts itself.
func (n *Inode) check() error {
	if n.Linked {
		return n.checkLinked()
	}
	for _, t := range [...]Time{n.Mtime, n.Ctime, n.Btime} {
		if t.Nsec >= 1e9 {
			return fmt.Errorf("%d nanoseconds", t.Nsec)
		}
	}
	if n.Size < 0 {
		return fmt.Errorf("size %d", n.Size)
	}
	if err := n.checkXattrs(); err != nil {
		return err
	}
	return n.checkContent()
}

func (n *Inode) checkLinked() error {
	typ := n.Mode & ModeType
	if n.ID == 0 || typ == 0 || typ == ModeDirectory || n.Mode != typ || n.UID|n.GID|n.Nlink != 0 || n.Size != 0 || n.Rdev != 0 ||
		n.Mtime != (Time{}) || n.Ctime != (Time{}) || n.Btime != (Time{}) ||
		!n.Content.IsZero() || len(n.Inline) != 0 || len(n.Xattrs) != 0 {
		return fmt.Errorf("a linked entry has the inode id and the type of a file alone")
	}
	return nil
}

func (n *Inode) checkXattrs() error {
	for name, v := range n.Xattrs {
		if len(name) == 0 || len(name) > MaxXattrName || len(v) > MaxXattrValue {
			return fmt.Errorf("extended attribute with a name of %d and a value of %d bytes", len(name), len(v))
		}
	}
	return nil
}

func (n *Inode) checkContent() error {
	switch n.Mode & ModeType {
	case ModeRegular:
		return n.checkRegular()
	case ModeSymlink:
		if len(n.Inline) == 0 || len(n.Inline) > MaxTarget || n.Size != int64(len(n.Inline)) || !n.Content.IsZero() {
			return fmt.Errorf("symlink of size %d with a target of %d bytes", n.Size, len(n.Inline))
		}
	case ModeDirectory:
		if len(n.Inline) != 0 || !n.Content.IsZero() && n.Content.Codec != link.DagPB {
			return fmt.Errorf("directory with the content of a file")
		}
	case ModeFIFO, ModeChar, ModeBlock, ModeSocket:
		if len(n.Inline) != 0 || !n.Content.IsZero() {
			return fmt.Errorf("mode %#o with content", n.Mode)
		}
	default:
		return fmt.Errorf("mode %#o has no type", n.Mode)
	}
	return nil
}

func (n *Inode) checkRegular() error {
	if len(n.Inline) == 0 {
		return n.File().check()
	}
	if len(n.Inline) > MaxInline || n.Size != int64(len(n.Inline)) || !n.Content.IsZero() {
		return fmt.Errorf("file of size %d with %d bytes of inline content", n.Size, len(n.Inline))
	}
	return nil
}
