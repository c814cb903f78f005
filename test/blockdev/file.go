package blockdev

import (
	"bytes"
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

	mu     sync.Mutex // guards all below
	node   uint64
	loaded Image // by the last load
	now    Image
	log    []Event
	bad    []byte // writes that contain it fail; empty: none
	cut    *cut   // nil: the power stays
}

// cut is when the power goes.
type cut struct {
	left int           // events until then
	gone chan struct{} // closed at that moment,
	seen chan struct{} // which lasts until this is closed
	over chan struct{} // closed when something else is planned
}

func newFile(size int64) *file {
	return &file{RawFileSystem: fuse.NewDefaultRawFileSystem(), size: size, node: rootNode + 1, loaded: Image{}, now: Image{}}
}

// load has the file hold what it held after the last load, but for blocks that
// changed, and forget its events. It has another node then.
func (f *file) load(changed Image) (node uint64) {
	f.plan(nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.node++
	f.loaded.apply(changed)
	f.now, f.log = f.loaded.Clone(), nil
	return f.node
}

// plan has the power go by a cut, or, without one, stay.
func (f *file) plan(c *cut) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut != nil {
		close(f.cut.over)
	}
	f.cut = c
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
	if node != f.node || f.cut != nil && f.cut.left == 0 || len(f.bad) > 0 && bytes.Contains(e.Data, f.bad) {
		return fuse.EIO
	}
	f.now.write(e.Data, e.Off)
	f.log = append(f.log, e)
	if f.cut != nil {
		if f.cut.left--; f.cut.left == 0 {
			close(f.cut.gone)
			<-f.cut.seen
		}
	}
	return fuse.OK
}
