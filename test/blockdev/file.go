package blockdev

import (
	"slices"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The node ids of the filesystem that the loop device lies on.
const (
	rootNode = 1
	fileNode = 2
	fileName = "disk"
)

// file is a filesystem with one file, which remembers what is done to it.
type file struct {
	fuse.RawFileSystem
	size int64

	mu  sync.Mutex // guards all below
	now Image
	log []Event
	bad func(Event) bool // writes that fail; nil: none
	cut *cut             // nil: the power stays
}

// cut is when the power goes.
type cut struct {
	left int // events until then
	then func()
}

func newFile(size int64) *file {
	return &file{RawFileSystem: fuse.NewDefaultRawFileSystem(), size: size, now: Image{}}
}

// String names the filesystem in go-fuse's messages.
func (f *file) String() string { return name }

func (f *file) attr(node uint64, out *fuse.Attr) {
	*out = fuse.Attr{Ino: node, Mode: unix.S_IFDIR | 0o700, Nlink: 2}
	if node == fileNode {
		*out = fuse.Attr{Ino: node, Mode: unix.S_IFREG | 0o600, Nlink: 1, Size: uint64(f.size), Blksize: blockSize}
	}
}

func (f *file) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name != fileName {
		return fuse.ENOENT
	}
	out.NodeId = fileNode
	f.attr(fileNode, &out.Attr)
	return fuse.OK
}

func (f *file) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	f.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

func (f *file) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

func (f *file) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(int64(in.Size), f.size-int64(in.Offset))
	f.now.read(buf[:n], int64(in.Offset))
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (f *file) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return uint32(len(data)), f.do(Event{int64(in.Offset), slices.Clone(data)})
}

// Fallocate is how the kernel has a range of the device become zeros.
func (f *file) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	return f.do(Event{int64(in.Offset), make([]byte, in.Length)})
}

func (f *file) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status {
	return f.do(Event{})
}

func (f *file) do(e Event) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut != nil && f.cut.left == 0 || f.bad != nil && !e.IsFlush() && f.bad(e) {
		return fuse.EIO
	}
	f.now.write(e.Data, e.Off)
	f.log = append(f.log, e)
	if f.cut != nil {
		if f.cut.left--; f.cut.left == 0 {
			f.cut.then()
		}
	}
	return fuse.OK
}
