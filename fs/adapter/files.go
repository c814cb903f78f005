package adapter

import (
	"errors"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"skep/cache/tree"
)

// Create makes a regular file and opens it. If somebody was faster to make it,
// it is opened, unless the caller insisted on O_EXCL.
func (f *FS) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	ctx, dir, flags := f.call(cancel), inoOf(in.NodeId), int(in.Flags)
	h, a, err := f.tree.Create(ctx, dir, name, in.Mode, flags, ownerOf(&in.InHeader, in.Umask))
	if errors.Is(err, tree.ErrExists) && flags&unix.O_EXCL == 0 {
		h, a, err = f.openExisting(ctx, dir, name, flags, in.OpenFlags)
	}
	past := isRollbackJournal(name) || err == nil && h.OneOfMany()
	return f.created("create", in, h, a, past, err, out)
}

// isRollbackJournal reports whether a file is what sqlite keeps the old pages of a
// database in for the time of a transaction. It is written by small pieces that
// cross the borders of pages, hardly ever read, and deleted: past the page cache
// that takes fewer requests, as the kernel neither splits the pieces nor asks for
// attributes of the file between them.
func isRollbackJournal(name string) bool { return strings.HasSuffix(name, "-journal") }

func (f *FS) openExisting(ctx *call, dir tree.Ino, name string, flags int, how uint32) (*tree.File, tree.Attr, error) {
	a, err := f.tree.Lookup(ctx, dir, name)
	if err != nil {
		return nil, a, err
	}
	if a.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, a, tree.ErrExists
	}
	h, err := f.open(ctx, a.Ino, flags, how)
	if err != nil {
		return nil, a, err
	}
	if a, err = f.tree.Attr(ctx, a.Ino); err != nil {
		h.Release()
	}
	return h, a, err
}

// Tmpfile makes a file without a name and opens it.
func (f *FS) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	h, a, err := f.tree.Tmpfile(f.call(cancel), inoOf(in.NodeId), in.Mode, int(in.Flags), ownerOf(&in.InHeader, in.Umask))
	return f.created("tmpfile", in, h, a, false, err, out)
}

func (f *FS) created(op string, in *fuse.CreateIn, h *tree.File, a tree.Attr, past bool, err error, out *fuse.CreateOut) fuse.Status {
	if err != nil {
		return f.status(op, in.NodeId, err)
	}
	f.admit(h, in.Flags, past, &out.OpenOut)
	return f.entry(&out.EntryOut, a)
}

// Open opens a regular file.
func (f *FS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	h, err := f.open(f.call(cancel), inoOf(in.NodeId), int(in.Flags), in.Mode)
	if err != nil {
		return f.status("open", in.NodeId, err)
	}
	f.admit(h, in.Flags, false, out)
	return fuse.OK
}

// open opens an inode; how holds the OPEN_ flags of the request. Emptying a file
// takes set-user-id from it like writing does.
func (f *FS) open(ctx *call, ino tree.Ino, flags int, how uint32) (*tree.File, error) {
	h, err := f.tree.Open(ctx, ino, flags)
	if err != nil {
		return nil, err
	}
	if flags&unix.O_TRUNC != 0 && how&fuse.OPEN_KILL_SUIDGID != 0 {
		if _, err := f.tree.SetAttr(ctx, ino, tree.SetAttr{KillPriv: true}); err != nil {
			h.Release()
			return nil, err
		}
	}
	return h, nil
}

// admit makes an open file known under a number and says how the kernel is to
// read and write it; past the page cache, if it may choose. A program that asks for
// that itself (O_DIRECT) needs nothing: the kernel then drops from its pages what it
// writes past them.
func (f *FS) admit(h *tree.File, flags uint32, past bool, out *fuse.OpenOut) {
	how := flags & unix.O_ACCMODE
	e := &openFile{File: h, writable: how != unix.O_RDONLY, readable: how != unix.O_WRONLY}
	f.enter(e, past, out)
	out.Fh = f.files.add(e)
	if !e.writable {
		out.OpenFlags |= fuse.FOPEN_NOFLUSH // closing it writes nothing
	}
}

// Release hears that a file was closed for good. It may be mapped still.
func (f *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if e, ok := f.files.take(in.Fh); ok {
		f.leave(e)
	}
}

// Read reads from a file.
func (f *FS) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, st := f.ReadInto(cancel, in, buf[:min(len(buf), int(in.Size))])
	if st != fuse.OK {
		return nil, st
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// ReadInto reads from a file into buf. The request loop prefers it to Read. Of a file
// that is passed through the kernel reads here only what it was advised to have at hand
// (readahead(2), POSIX_FADV_WILLNEED), into pages that nobody reads by now, and that
// would be old when the file goes through the daemon again. So the local disk has it at
// hand, and the kernel is given nothing.
func (f *FS) ReadInto(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (int, fuse.Status) {
	h, ok := f.files.get(in.Fh)
	if !ok {
		return 0, fuse.EBADF
	}
	n, err := h.ReadAt(f.call(cancel), buf, int64(in.Offset))
	if err != nil {
		return 0, f.status("read", in.NodeId, err)
	}
	if h.passed {
		return 0, fuse.EIO
	}
	return n, fuse.OK
}

// Write writes to a file. Some of it may have been written when it fails; then
// that is the answer, and the rest fails when it is tried again.
func (f *FS) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h, ok := f.files.get(in.Fh)
	if !ok {
		return 0, fuse.EBADF
	}
	ctx := f.call(cancel)
	if h.past {
		if err := f.dropCapabilities(ctx, h); err != nil {
			return 0, f.status("write", in.NodeId, err)
		}
	}
	n, err := h.WriteAt(ctx, data, int64(in.Offset), in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0)
	if err == nil && in.Flags&unix.O_DSYNC != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0 {
		// RWF_DSYNC of one write; past the page cache the kernel asks for no flush.
		if err = h.Sync(ctx, true); err != nil {
			n = 0 // what did not reach the disk was not written
		}
	}
	if err != nil && n == 0 {
		return 0, f.status("write", in.NodeId, err)
	}
	return uint32(n), fuse.OK
}

// dropCapabilities takes the capabilities from a file that is about to be written
// past the page cache. Otherwise the kernel does so.
func (f *FS) dropCapabilities(ctx *call, h *openFile) error {
	const name = "security.capability"
	_, err := f.tree.GetXattr(ctx, h.Ino(), name)
	if err == nil {
		err = f.tree.RemoveXattr(ctx, h.Ino(), name)
	}
	if errors.Is(err, tree.ErrNoAttr) {
		return nil
	}
	return err
}

// Flush would be a close(2) of one descriptor of a file. The kernel asks once:
// it has written stores into mappings by then, each write has been here, and
// what it writes by itself the tree asks the backing file for.
func (f *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// syncData is the flag of an fsync request that leaves times alone.
const syncData = 1

// Fsync returns when a file survives power loss.
func (f *FS) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, ok := f.files.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	return f.status("fsync", in.NodeId, h.Sync(f.call(cancel), in.FsyncFlags&syncData != 0))
}

// Fallocate reserves, zeroes or punches out a range.
func (f *FS) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h, ok := f.files.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	err := h.Allocate(f.call(cancel), int64(in.Offset), int64(in.Length), in.Mode)
	f.notes.attributes(inoOf(in.NodeId))
	return f.status("fallocate", in.NodeId, err)
}

// Lseek finds data or a hole; all else the kernel does by itself.
func (f *FS) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h, ok := f.files.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	if in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE {
		return fuse.EINVAL
	}
	ctx := f.call(cancel)
	stores := f.hasStores(h)
	if stores {
		if err := f.writeStores(ctx, h, int64(in.Offset)); err != nil {
			return f.status("lseek", in.NodeId, err)
		}
	}
	off, err := h.Seek(ctx, int64(in.Offset), int(in.Whence))
	if !stores && f.hasStores(h) { // the last of it has come here meanwhile
		return f.Lseek(cancel, in, out)
	}
	if err != nil {
		return f.status("lseek", in.NodeId, err)
	}
	out.Offset = uint64(off)
	return fuse.OK
}

// hasStores reports whether the kernel may have what was stored by mappings and what
// the tree calls a hole.
func (f *FS) hasStores(h *openFile) bool { return !f.modes.passed(h.Ino()) && h.Storable() }

// writeStores has the kernel write what was stored by mappings, from an offset on,
// before it is told where data are: the tree knows of it only then. The kernel does so
// when it is to forget the content. It is the one request that waits for others, for
// reads and writes of the same file: the kernel holds nothing meanwhile that these wait
// for. They may last; who is killed goes before.
func (f *FS) writeStores(ctx *call, h *openFile, off int64) error {
	killed := ctx.Done() // others are to be handled meanwhile
	select {
	case f.storing <- struct{}{}:
	case <-killed:
		return ctx.Err()
	}
	told := make(chan error, 1)
	go func() {
		told <- f.kernel.InvalidateInode(nodeOf(h.Ino()), off, 0)
		<-f.storing
	}()
	select {
	case err := <-told:
		return err
	case <-killed:
		return ctx.Err()
	}
}

// mostStoring is how many notices of writeStores may be under way, each of which has a
// thread: also those that nobody waits for any more.
const mostStoring = 64

// Ioctl says that a drive's files have no controls of their own.
func (f *FS) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(unix.ENOTTY)
}
