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
	return f.list(cancel, in, func(name string, cookie uint64, a tree.Attr) bool {
		return out.AddDirEntry(dirEntry(name, cookie, a))
	})
}

// ReadDirPlus lists names together with attributes.
func (f *FS) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(cancel, in, func(name string, cookie uint64, a tree.Attr) bool {
		e := out.AddDirLookupEntry(dirEntry(name, cookie, a))
		if e == nil {
			return false
		}
		if cookie > cookieParent { // the kernel looks "." and ".." up by itself
			f.entry(e, a)
		}
		return true
	})
}

func dirEntry(name string, cookie uint64, a tree.Attr) fuse.DirEntry {
	return fuse.DirEntry{Name: name, Mode: a.Mode, Ino: uint64(a.Ino), Off: cookie}
}

// list calls add for the entries after the cookie in the request until it
// returns false.
func (f *FS) list(cancel <-chan struct{}, in *fuse.ReadIn, add func(string, uint64, tree.Attr) bool) fuse.Status {
	dir, after := inoOf(in.NodeId), in.Offset
	if after < cookieSelf && !add(".", cookieSelf, tree.Attr{Ino: dir, Mode: unix.S_IFDIR}) {
		return fuse.OK
	}
	if after < cookieParent {
		up, err := f.tree.Parent(f.call(cancel), dir)
		if err != nil {
			return f.status("readdir", in.NodeId, err)
		}
		if !add("..", cookieParent, tree.Attr{Ino: up, Mode: unix.S_IFDIR}) {
			return fuse.OK
		}
	}
	err := f.tree.ReadDir(f.call(cancel), dir, max(after, cookieParent), func(e tree.DirEntry) bool {
		return add(e.Name, e.Cookie, e.Attr)
	})
	return f.status("readdir", in.NodeId, err)
}

// FsyncDir returns when the names of a directory survive power loss.
func (f *FS) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return f.status("fsyncdir", in.NodeId, f.tree.SyncDir(f.call(cancel), inoOf(in.NodeId)))
}
