package model

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is what an operation does.
type Kind int

// The operations. Those with a Handle work on a file that Open opened and Close
// closes, the rest on paths.
const (
	Create Kind = iota
	Mkdir
	Symlink
	Mkfifo
	Link
	Unlink
	Rmdir
	Rename    // Path to To, replacing
	NoReplace // … but nothing that is there
	Exchange
	Write // Len bytes at Off
	Append
	Truncate // to Len
	Empty    // open with O_TRUNC, and close
	Punch    // [Off, Off+Len)
	Zero     // FALLOC_FL_ZERO_RANGE
	Allocate
	Store // Len bytes at Off through a shared mapping
	Chmod // to Mode
	Touch // the modification time, to Len seconds
	SetXattr
	RemoveXattr
	Read // Len bytes at Off
	Copy // Len bytes from the beginning of Path to Off of To: copy_file_range
	Fsync
	Fdatasync
	SyncDir
	Sync
	Open // with Flags, as Handle
	Close
	WriteTo // the handle
	ReadFrom
	TruncateOpen
	PunchOpen
	StoreTo
	FsyncOpen
	Tmpfile // as Handle
	LinkOpen
	Map // the file at Path, which is closed at once, or that of the Handle, as a mapping of that number
	StoreMapped
	LoadMapped
	Unmap
	// What programs do not see; a test says what it is.
	Commit // everything
	Evict  // Path
	Forget // the journal that is not needed
	Restart
	kinds
)

var kindNames = [kinds]string{"create", "mkdir", "symlink", "mkfifo", "link", "unlink", "rmdir", "rename", "noreplace",
	"exchange", "write", "append", "truncate", "empty", "punch", "zero", "allocate", "store", "chmod", "touch", "setxattr",
	"removexattr", "read", "copy", "fsync", "fdatasync", "syncdir", "sync", "open", "close", "write-to", "read-from",
	"truncate-open", "punch-open", "store-to", "fsync-open", "tmpfile", "link-open", "map",
	"store-mapped", "load-mapped", "unmap", "commit", "evict", "forget", "restart"}

func (k Kind) String() string { return kindNames[k] }

// MarshalText writes the name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads it.
func (k *Kind) UnmarshalText(b []byte) error {
	i := slices.Index(kindNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("no operation is called %q", b)
	}
	*k = Kind(i)
	return nil
}

// hasHandle reports whether an operation is on a handle or a mapping.
func (k Kind) hasHandle() bool { return k >= Open && k <= Unmap }

// mappings is added to the number of a mapping: it counts as a handle, for reading and
// writing, that a descriptor is not needed for.
const mappings = 1 << 20

// mapped is what an operation on a mapping does to the handle that it is.
func (o Op) mapped() Op {
	o.Kind = map[Kind]Kind{StoreMapped: StoreTo, LoadMapped: ReadFrom, Unmap: Close}[o.Kind]
	o.Handle += mappings
	return o
}

// Op is one operation.
type Op struct {
	Kind   Kind
	Path   string `json:",omitzero"` // below the root, without a slash at the beginning
	To     string `json:",omitzero"` // likewise
	Off    int64  `json:",omitzero"`
	Len    int64  `json:",omitzero"`
	Fill   byte   `json:",omitzero"` // tells written bytes apart
	Mode   uint32 `json:",omitzero"`
	Name   string `json:",omitzero"` // of an attribute
	Handle int    `json:",omitzero"`
	Flags  int    `json:",omitzero"` // os.O_*
}

func (o Op) String() string {
	var b strings.Builder
	fmt.Fprint(&b, o.Kind)
	field := func(name string, v any, zero bool) {
		if !zero {
			fmt.Fprintf(&b, " %s%v", name, v)
		}
	}
	field("", o.Path, o.Path == "")
	field("> ", o.To, o.To == "")
	field("at ", o.Off, o.Off == 0)
	field("len ", o.Len, o.Len == 0)
	field("fill ", o.Fill, o.Fill == 0)
	field("mode ", fmt.Sprintf("%o", o.Mode), o.Mode == 0)
	field("", o.Name, o.Name == "")
	field("flags ", fmt.Sprintf("%#x", o.Flags), o.Flags == 0)
	field("#", o.Handle, !o.Kind.hasHandle())
	return b.String()
}

// Bytes is what the operation writes: never zero, and telling where it was to
// be.
func (o Op) Bytes() []byte {
	p := make([]byte, o.Len)
	for i := range p {
		p[i] = byte(1 + (int(o.Fill)*31+i+i>>8)%255)
	}
	return p
}

// Value is what a SetXattr sets.
func (o Op) Value() []byte { return o.Bytes() }

// Result is what a program is told.
type Result struct {
	Errno unix.Errno
	Data  []byte // that was read
}

func (r Result) String() string {
	if r.Errno != 0 {
		return r.Errno.Error()
	}
	return fmt.Sprintf("ok, %d bytes", len(r.Data))
}

// Target is what operations are done on.
type Target interface {
	Do(op Op) Result
	// List tells all that can be seen, by path.
	List() (Listing, error)
}

// Listing is a whole tree, by path; the root's is "".
type Listing map[string]Entry

// Entry is what can be seen of one path.
type Entry struct {
	File    uint64 // the same for all names of one file, whatever the number
	Mode    uint32 // with the bits of the type
	Nlink   uint32
	Size    int64 // of what is not a directory
	Mtime   int64 // seconds
	Target  string
	Xattrs  map[string]string
	Content []byte
}
