package tree

import (
	"errors"
	"time"

	"skep/cache/readerr"
)

// Ino identifies an inode. Numbers are unique over the devices of a drive (the
// upper 24 bits are the device's prefix) and are not used again.
type Ino uint64

// Root is the inode of the drive's root directory.
const Root Ino = 1

// Links stands, in marks, for the drive's table of inodes with several hard
// links. It is no directory that anybody can open.
const Links Ino = 2

// NameMax is the longest name of a directory entry, in bytes.
const NameMax = 255

// MaxSize is the largest file, in bytes: 8 EiB of offsets less one chunk are
// allowed by the kernel, but a DAG deeper than five levels is refused.
const MaxSize = 1 << 46

// InlineMax is up to which size the content of a file is a row of the tables;
// a larger one has a backing file.
const InlineMax = 16 << 10

// Time is a moment: seconds since 1970, before it negative, and nanoseconds.
type Time struct {
	Sec  int64
	Nsec uint32
}

// TimeOf converts a time.Time.
func TimeOf(t time.Time) Time { return Time{t.Unix(), uint32(t.Nanosecond())} }

// Attr is what stat tells of an inode.
type Attr struct {
	Ino                        Ino
	Mode                       uint32 // as st_mode, type bits included
	Nlink, UID, GID, Rdev      uint32
	Size, Blocks               int64 // bytes; units of 512 bytes
	Atime, Mtime, Ctime, Btime Time
	// Mapped says that somebody may store into the file by a mapping, unheard: what is
	// said here is true of this moment only.
	Mapped bool
	// Passed says the same of the kernel, if it writes where Passthrough said.
	Passed bool
}

// Owner is whom a new inode belongs to. Umask are the permissions that its maker
// withholds, where the directory has no default access control list.
type Owner struct{ UID, GID, Umask uint32 }

// SetAttr says what to change; nil leaves a field alone.
type SetAttr struct {
	Mode, UID, GID      *uint32
	Size                *int64
	Atime, Mtime, Ctime *Time
	// KillPriv clears set-user-id and set-group-id as a write would.
	KillPriv bool
	// KillOwner clears them as a change of owner would.
	KillOwner bool
	// File is the handle through which Size is set, if there is one.
	File *File
}

// DirEntry is one entry of a directory.
type DirEntry struct {
	Name   string
	Cookie uint64 // where ReadDir goes on after this entry
	Attr   Attr
	Bare   bool // of Attr, only number and type are known: the rest is with holders
}

// StatFS is what statfs tells. Nothing of it is 0.
type StatFS struct {
	Total, Free, Avail int64 // bytes
	Files, FreeFiles   uint64
	NameLen            uint32
}

// What the tree refuses. The mount maps each to one errno.
var (
	ErrNotFound     = errors.New("no such file or directory")
	ErrExists       = errors.New("file exists")
	ErrNotDir       = errors.New("not a directory")
	ErrIsDir        = errors.New("is a directory")
	ErrNotEmpty     = errors.New("directory not empty")
	ErrNameTooLong  = errors.New("name too long")
	ErrTooManyLinks = errors.New("too many links")
	ErrInvalid      = errors.New("invalid argument")
	ErrNoAttr       = errors.New("no such attribute")
	ErrTooBig       = errors.New("attribute too big")
	ErrFileTooBig   = errors.New("file too large")
	ErrNoSpace      = errors.New("no space left")
	ErrReadOnly     = errors.New("read-only")
	ErrPerm         = errors.New("operation not permitted")
	ErrAccess       = errors.New("permission denied")
	ErrStale        = errors.New("stale inode")
	ErrUnsupported  = errors.New("operation not supported")
	ErrNoRange      = errors.New("no such offset")
	ErrRange        = errors.New("result too large")
)

// What can be wrong with content that is not on this device: see package
// readerr.
var (
	ErrLost        = readerr.ErrLost
	ErrCorrupt     = readerr.ErrCorrupt
	ErrUnreachable = readerr.ErrUnreachable
)
