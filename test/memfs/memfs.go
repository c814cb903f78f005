package memfs

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"skep/fs/mount"
)

// remember is how long the kernel may rely on what it was told.
const remember = time.Hour

// node is a file, directory or link. Its number is the kernel's node id.
type node struct {
	attr    fuse.Attr
	entries map[string]*node // of a directory
	listed  []string         // names for a listing that is under way
	parent  *node            // of a directory
	pages   map[int64][]byte // content, by its place divided by pageSize
	target  string
}

// pageSize is the unit in which content is kept.
const pageSize = 64 << 10

// FS is the filesystem. It serves one mount.
type FS struct {
	fuse.RawFileSystem
	mu    sync.Mutex // guards all below, and all nodes
	nodes map[uint64]*node
	last  uint64
}

// New returns a filesystem that has an empty root.
func New() *FS {
	f := &FS{RawFileSystem: fuse.NewDefaultRawFileSystem(), nodes: map[uint64]*node{}}
	root := f.make(unix.S_IFDIR|0o777, fuse.Owner{})
	root.parent = root
	return f
}

// Attach implements mount.FileSystem.
func (f *FS) Attach(mount.Kernel) {}

// String names the filesystem in go-fuse's messages.
func (f *FS) String() string { return "memfs" }

// make makes a node; f.mu is held, or nobody knows f yet.
func (f *FS) make(mode uint32, owner fuse.Owner) *node {
	f.last++
	n := &node{attr: fuse.Attr{Ino: f.last, Mode: mode, Nlink: 1, Owner: owner, Blksize: 4096}}
	if mode&unix.S_IFMT == unix.S_IFDIR {
		n.entries, n.attr.Nlink = map[string]*node{}, 2
	} else {
		n.pages = map[int64][]byte{}
	}
	n.touch()
	n.attr.Atime, n.attr.Atimensec = n.attr.Mtime, n.attr.Mtimensec
	f.nodes[f.last] = n
	return n
}

// touch sets the times of change.
func (n *node) touch() {
	now := time.Now()
	n.attr.Mtime, n.attr.Mtimensec = uint64(now.Unix()), uint32(now.Nanosecond())
	n.attr.Ctime, n.attr.Ctimensec = n.attr.Mtime, n.attr.Mtimensec
}

// show fills in the answer to a request that found or made a node.
func (n *node) show(out *fuse.EntryOut) {
	out.NodeId, out.Attr = n.attr.Ino, n.attr
	out.SetEntryTimeout(remember)
	out.SetAttrTimeout(remember)
}

// within calls do with the node of a number.
func (f *FS) within(number uint64, do func(n *node) fuse.Status) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[number]
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	return do(n)
}

// add makes an entry of a directory.
func (f *FS) add(dir uint64, name string, mode uint32, owner fuse.Owner, out *fuse.EntryOut) (made *node, st fuse.Status) {
	st = f.within(dir, func(d *node) fuse.Status {
		if d.entries[name] != nil {
			return fuse.Status(unix.EEXIST)
		}
		made = f.make(mode, owner)
		made.parent = d
		d.entries[name] = made
		d.touch()
		made.show(out)
		return fuse.OK
	})
	return made, st
}

func (f *FS) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return f.within(in.NodeId, func(d *node) fuse.Status {
		n := d.entries[name]
		if n == nil {
			out.SetEntryTimeout(remember)
			return fuse.OK
		}
		n.show(out)
		return fuse.OK
	})
}

func (f *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return f.within(in.NodeId, func(n *node) fuse.Status {
		out.Attr = n.attr
		out.SetTimeout(remember)
		return fuse.OK
	})
}

func (f *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return f.within(in.NodeId, func(n *node) fuse.Status {
		n.change(in)
		out.Attr = n.attr
		out.SetTimeout(remember)
		return fuse.OK
	})
}

func (n *node) change(in *fuse.SetAttrIn) {
	n.attr.Ctime = uint64(time.Now().Unix())
	if in.Valid&fuse.FATTR_MODE != 0 {
		n.attr.Mode = n.attr.Mode&unix.S_IFMT | in.Mode&0o7777
	}
	if in.Valid&fuse.FATTR_UID != 0 {
		n.attr.Uid = in.Uid
	}
	if in.Valid&fuse.FATTR_GID != 0 {
		n.attr.Gid = in.Gid
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		n.truncate(int64(in.Size))
	}
	now := time.Now()
	if t, ok := in.GetMTime(); ok || in.Valid&fuse.FATTR_MTIME_NOW != 0 {
		if !ok {
			t = now
		}
		n.attr.Mtime, n.attr.Mtimensec = uint64(t.Unix()), uint32(t.Nanosecond())
	}
	if t, ok := in.GetATime(); ok {
		n.attr.Atime, n.attr.Atimensec = uint64(t.Unix()), uint32(t.Nanosecond())
	}
}

func (n *node) truncate(size int64) {
	for i, p := range n.pages {
		switch start := i * pageSize; {
		case start >= size:
			delete(n.pages, i)
		case start+pageSize > size:
			clear(p[size-start:])
		}
	}
	n.attr.Size = uint64(size)
}

func (f *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	_, st := f.add(in.NodeId, name, in.Mode, in.Owner, out)
	return st
}

func (f *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	_, st := f.add(in.NodeId, name, in.Mode&0o7777|unix.S_IFDIR, in.Owner, out)
	return st
}

func (f *FS) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	n, st := f.add(in.NodeId, name, unix.S_IFLNK|0o777, in.Owner, out)
	if st == fuse.OK {
		f.mu.Lock()
		defer f.mu.Unlock()
		n.target, n.attr.Size = target, uint64(len(target))
		out.Attr.Size = n.attr.Size
	}
	return st
}

func (f *FS) Readlink(_ <-chan struct{}, in *fuse.InHeader) (target []byte, st fuse.Status) {
	st = f.within(in.NodeId, func(n *node) fuse.Status {
		target = []byte(n.target)
		return fuse.OK
	})
	return target, st
}

func (f *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.within(in.NodeId, func(d *node) fuse.Status {
		n := f.nodes[in.Oldnodeid]
		if n == nil || d.entries[name] != nil {
			return fuse.Status(unix.EEXIST)
		}
		d.entries[name] = n
		n.attr.Nlink++
		d.touch()
		n.show(out)
		return fuse.OK
	})
}

func (f *FS) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return f.within(in.NodeId, func(d *node) fuse.Status { return f.remove(d, name) })
}

func (f *FS) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return f.Unlink(nil, in, name)
}

// remove removes an entry. The node is forgotten when the kernel does.
func (f *FS) remove(d *node, name string) fuse.Status {
	n := d.entries[name]
	switch {
	case n == nil:
		return fuse.ENOENT
	case len(n.entries) > 0:
		return fuse.Status(unix.ENOTEMPTY)
	case n.entries != nil:
		n.attr.Nlink = 0
	default:
		n.attr.Nlink--
	}
	delete(d.entries, name)
	d.touch()
	return fuse.OK
}

func (f *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	return f.within(in.NodeId, func(d *node) fuse.Status {
		n, dest := d.entries[from], f.nodes[in.Newdir]
		if n == nil || dest == nil {
			return fuse.ENOENT
		}
		if old := dest.entries[to]; old != nil && old != n {
			switch {
			case in.Flags&unix.RENAME_NOREPLACE != 0:
				return fuse.Status(unix.EEXIST)
			case in.Flags != 0:
				return fuse.EINVAL
			}
			if st := f.remove(dest, to); st != fuse.OK {
				return st
			}
		}
		delete(d.entries, from)
		dest.entries[to], n.parent = n, dest
		d.touch()
		dest.touch()
		return fuse.OK
	})
}

// Forget lets go of a node that has no name.
func (f *FS) Forget(number, _ uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.nodes[number]; n != nil && n.attr.Nlink == 0 {
		delete(f.nodes, number)
	}
}

func (f *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	_, st := f.add(in.NodeId, name, in.Mode&0o7777|unix.S_IFREG, in.Owner, &out.EntryOut)
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return st
}

func (f *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	if in.Flags&unix.O_TRUNC == 0 {
		return fuse.OK
	}
	return f.within(in.NodeId, func(n *node) fuse.Status {
		n.truncate(0)
		n.touch()
		return fuse.OK
	})
}

func (f *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	var got int
	st := f.within(in.NodeId, func(n *node) fuse.Status {
		got = n.read(buf[:min(len(buf), int(in.Size))], int64(in.Offset))
		return fuse.OK
	})
	return fuse.ReadResultData(buf[:got]), st
}

func (n *node) read(buf []byte, off int64) int {
	buf = buf[:max(0, min(int64(len(buf)), int64(n.attr.Size)-off))]
	for done := 0; done < len(buf); {
		place := off + int64(done)
		page, at := n.pages[place/pageSize], place%pageSize
		end := min(len(buf), done+int(pageSize-at))
		if page == nil {
			clear(buf[done:end])
		} else {
			copy(buf[done:end], page[at:])
		}
		done = end
	}
	return len(buf)
}

func (f *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	st := f.within(in.NodeId, func(n *node) fuse.Status {
		n.write(data, int64(in.Offset))
		n.touch()
		return fuse.OK
	})
	return uint32(len(data)), st
}

func (n *node) write(data []byte, off int64) {
	n.attr.Size = max(n.attr.Size, uint64(off)+uint64(len(data)))
	for len(data) > 0 {
		i, at := off/pageSize, off%pageSize
		if n.pages[i] == nil {
			n.pages[i] = make([]byte, pageSize)
		}
		c := copy(n.pages[i][at:], data)
		data, off = data[c:], off+int64(c)
	}
}

func (f *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status                 { return fuse.OK }
func (f *FS) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status                 { return fuse.OK }
func (f *FS) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status              { return fuse.OK }
func (f *FS) Release(<-chan struct{}, *fuse.ReleaseIn)                         {}
func (f *FS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

func (f *FS) GetXAttr(<-chan struct{}, *fuse.InHeader, string, []byte) (uint32, fuse.Status) {
	return 0, fuse.ENODATA
}

func (f *FS) ListXAttr(<-chan struct{}, *fuse.InHeader, []byte) (uint32, fuse.Status) {
	return 0, fuse.OK
}

func (f *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Blocks: 1 << 30, Bfree: 1 << 30, Bavail: 1 << 30, Files: 1 << 30, Ffree: 1 << 30,
		Bsize: 4096, Frsize: 4096, NameLen: 255}
	return fuse.OK
}

func (f *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, func(e fuse.DirEntry, n *node) bool { return out.AddDirEntry(e) })
}

func (f *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, func(e fuse.DirEntry, n *node) bool {
		entry := out.AddDirLookupEntry(e)
		if entry != nil && n != nil {
			n.show(entry)
		}
		return entry != nil
	})
}

// list lists a directory as it was when its begin was asked for.
func (f *FS) list(in *fuse.ReadIn, add func(fuse.DirEntry, *node) bool) fuse.Status {
	return f.within(in.NodeId, func(d *node) fuse.Status {
		if in.Offset == 0 {
			d.listed = slices.Sorted(maps.Keys(d.entries))
		}
		for i := in.Offset; i < uint64(len(d.listed))+2; i++ {
			e := fuse.DirEntry{Name: ".", Mode: unix.S_IFDIR, Ino: d.attr.Ino, Off: i + 1}
			var n *node
			switch i {
			case 0:
			case 1:
				e.Name, e.Ino = "..", d.parent.attr.Ino
			default:
				if n = d.entries[d.listed[i-2]]; n == nil {
					continue
				}
				e.Name, e.Mode, e.Ino = d.listed[i-2], n.attr.Mode, n.attr.Ino
			}
			if !add(e, n) {
				break
			}
		}
		return fuse.OK
	})
}
