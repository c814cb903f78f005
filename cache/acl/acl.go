package acl

import (
	"encoding/binary"
	"errors"
	"slices"
)

// The extended attributes that hold access control lists.
const (
	Access  = "system.posix_acl_access"
	Default = "system.posix_acl_default"
)

// ErrInvalid says that bytes are no access control list.
var ErrInvalid = errors.New("not an access control list")

// Tag says whom an entry is about.
type Tag uint16

// The tags, in the order in which entries stand.
const (
	UserObj  Tag = 0x01 // the owner
	User     Tag = 0x02 // the user named by ID
	GroupObj Tag = 0x04 // the owning group
	Group    Tag = 0x08 // the group named by ID
	Mask     Tag = 0x10 // the most that all but owner and others get
	Other    Tag = 0x20 // everybody else
)

// noID is the ID of entries that name nobody.
const noID = 0xffffffff

// Entry gives somebody permissions.
type Entry struct {
	Tag  Tag
	Perm uint16 // 4 read, 2 write, 1 execute
	ID   uint32 // of User and Group entries
}

// List is a valid list: one entry each for owner, owning group and others,
// named users and groups in between, and a mask if there are any.
type List []Entry

const (
	version    = 2
	headerSize = 4
	entrySize  = 8
)

// Parse reads a list from an extended attribute's value.
func Parse(b []byte) (List, error) {
	if len(b) < headerSize || (len(b)-headerSize)%entrySize != 0 || binary.LittleEndian.Uint32(b) != version {
		return nil, ErrInvalid
	}
	var l List
	for b = b[headerSize:]; len(b) > 0; b = b[entrySize:] {
		e := Entry{Tag(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint16(b[2:]), noID}
		if e.Tag == User || e.Tag == Group {
			e.ID = binary.LittleEndian.Uint32(b[4:])
		}
		l = append(l, e)
	}
	if !l.valid() {
		return nil, ErrInvalid
	}
	return l, nil
}

// valid checks that the entries are those that a list must have, in order.
func (l List) valid() bool {
	count := map[Tag]int{}
	last := Tag(0)
	for _, e := range l {
		if e.Perm > 7 || e.Tag < last {
			return false
		}
		last = e.Tag
		count[e.Tag]++
	}
	named := count[User] + count[Group]
	known := count[UserObj] + count[GroupObj] + count[Other] + count[Mask] + named
	return known == len(l) && count[UserObj] == 1 && count[GroupObj] == 1 && count[Other] == 1 &&
		count[Mask] <= 1 && (named == 0 || count[Mask] == 1)
}

// Bytes is the list as an extended attribute's value.
func (l List) Bytes() []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, headerSize+len(l)*entrySize), version)
	for _, e := range l {
		b = binary.LittleEndian.AppendUint16(b, uint16(e.Tag))
		b = binary.LittleEndian.AppendUint16(b, e.Perm)
		b = binary.LittleEndian.AppendUint32(b, e.ID)
	}
	return b
}

// Mode returns the nine permission bits that stand for the list in a mode: the
// group's are those of the mask, where there is one.
func (l List) Mode() uint32 {
	return l.perm(UserObj)<<6 | l.perm(l.groupClass())<<3 | l.perm(Other)
}

// Plain reports whether the list says no more than its mode does.
func (l List) Plain() bool { return len(l) == 3 }

// WithMode returns the list as chmod changes it: owner, mask (else the owning
// group) and others get the bits of mode.
func (l List) WithMode(mode uint32) List {
	out := slices.Clone(l)
	out.set(UserObj, mode>>6)
	out.set(l.groupClass(), mode>>3)
	out.set(Other, mode)
	return out
}

// Inherit returns what a file made with mode gets below a directory whose
// default list is l: its access list and the mode that stands for it. What mode
// withholds, the list does not give.
func (l List) Inherit(mode uint32) (List, uint32) {
	out := l.WithMode(l.Mode() & mode)
	return out, mode&^0o777 | out.Mode()
}

// groupClass is the tag whose permissions are shown as the group's.
func (l List) groupClass() Tag {
	if slices.ContainsFunc(l, func(e Entry) bool { return e.Tag == Mask }) {
		return Mask
	}
	return GroupObj
}

func (l List) perm(t Tag) uint32 {
	for _, e := range l {
		if e.Tag == t {
			return uint32(e.Perm)
		}
	}
	return 0
}

// set gives the one entry of a tag the three lowest bits of perm.
func (l List) set(t Tag, perm uint32) {
	for i := range l {
		if l[i].Tag == t {
			l[i].Perm = uint16(perm & 7)
		}
	}
}
