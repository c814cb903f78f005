package blockdev

import (
	"fmt"
	"slices"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// rootNode is the directory of the filesystem that the loop device lies on; its
// file has another number, and name, after each Load.
const rootNode = 1

func fileName(node uint64) string { return fmt.Sprint("disk", node) }

// file is a filesystem with one file, which remembers what is done to it.
type file struct {
	fuse.RawFileSystem
	size int64

	mu   sync.Mutex // guards all below
	node uint64
	now  Image
	log  []Event
	bad  func(Event) bool // writes that fail; nil: none
	cut  *cut             // nil: the power stays
}

// cut is when the power goes.
type cut struct {
	left int // events until then
	then func()
}

func newFile(size int64) *file {
	return &file{RawFileSystem: fuse.NewDefaultRawFileSystem(), size: size, node: rootNode + 1, now: Image{}}
}

// String names the filesystem in go-fuse's messages.
func (f *file) String() string { return name }

func (f *file) attr(node uint64, out *fuse.Attr) {
	*out = fuse.Attr{Ino: node, Mode: unix.S_IFDIR | 0o700, Nlink: 2}
	if node != rootNode {
		*out = fuse.Attr{Ino: node, Mode: unix.S_IFREG | 0o600, Nlink: 1, Size: uint64(f.size), Blksize: blockSize}
	}
}

func (f *file) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name != fileName(f.node) {
		return fuse.ENOENT
	}
	out.NodeId = f.node
	f.attr(f.node, &out.Attr)
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
	if in.NodeId != f.node {
		return nil, fuse.EIO
	}
	n := min(int64(in.Size), f.size-int64(in.Offset))
	f.now.read(buf[:n], int64(in.Offset))
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (f *file) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return uint32(len(data)), f.do(in.NodeId, Event{int64(in.Offset), slices.Clone(data)})
}

// Fallocate is how the kernel has a range of the device become zeros.
func (f *file) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	return f.do(in.NodeId, Event{int64(in.Offset), make([]byte, in.Length)})
}

func (f *file) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return f.do(in.NodeId, Event{})
}

// do does what came by a node: an earlier loop device may still have something to
// write, if a mount of it lives on in somebody's mount namespace.
func (f *file) do(node uint64, e Event) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if node != f.node || f.cut != nil && f.cut.left == 0 || f.bad != nil && !e.IsFlush() && f.bad(e) {
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
