package adapter

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"skep/cache/tree"
)

// Cookies of the two names that the tree does not list. The tree's own begin
// above them.
const (
	cookieSelf   = 1
	cookieParent = 2
)

// OpenDir says that directories need not be opened: listing them takes no state
// but the cookie. The kernel stops asking, and keeps the listings that it has
// seen until it changes a directory itself.
func (f *FS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// ReadDir lists names.
func (f *FS) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(cancel, in, func(entry tree.DirEntry) bool { return out.AddDirEntry(dirEntry(entry)) })
}

// ReadDirPlus lists names together with attributes.
func (f *FS) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(cancel, in, func(entry tree.DirEntry) bool {
		e := out.AddDirLookupEntry(dirEntry(entry))
		if e == nil {
			return false
		}
		if entry.Cookie > cookieParent && !entry.Bare { // else the kernel looks it up by itself
			f.entry(e, entry.Attr)
		}
		return true
	})
}

func dirEntry(e tree.DirEntry) fuse.DirEntry {
	return fuse.DirEntry{Name: e.Name, Mode: e.Attr.Mode, Ino: uint64(e.Attr.Ino), Off: e.Cookie}
}

// list calls add for the entries after the cookie in the request until it
// returns false.
func (f *FS) list(cancel <-chan struct{}, in *fuse.ReadIn, add func(tree.DirEntry) bool) fuse.Status {
	dir, after := inoOf(in.NodeId), in.Offset
	if after < cookieSelf && !add(directoryEntry(".", cookieSelf, dir)) {
		return fuse.OK
	}
	if after < cookieParent {
		up, err := f.tree.Parent(f.call(cancel), dir)
		if err != nil {
			return f.status("readdir", in.NodeId, err)
		}
		if !add(directoryEntry("..", cookieParent, up)) {
			return fuse.OK
		}
	}
	return f.status("readdir", in.NodeId, f.tree.ReadDir(f.call(cancel), dir, max(after, cookieParent), add))
}

func directoryEntry(name string, cookie uint64, ino tree.Ino) tree.DirEntry {
	return tree.DirEntry{Name: name, Cookie: cookie, Attr: tree.Attr{Ino: ino, Mode: unix.S_IFDIR}}
}

// FsyncDir returns when the names of a directory survive power loss.
func (f *FS) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return f.status("fsyncdir", in.NodeId, f.tree.SyncDir(f.call(cancel), inoOf(in.NodeId)))
}
