package adapter

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"

	"skep/cache/tree"
)

// Lookup finds a name. That there is none is an answer too, which the kernel
// may remember.
func (f *FS) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	a, err := f.tree.Lookup(f.call(cancel), inoOf(in.NodeId), name)
	if errors.Is(err, tree.ErrNotFound) {
		out.NodeId = 0
		out.SetEntryTimeout(remember)
		return fuse.OK
	}
	return f.made("lookup", in.NodeId, a, err, out)
}

// made answers a request that found or made a name.
func (f *FS) made(op string, dir uint64, a tree.Attr, err error, out *fuse.EntryOut) fuse.Status {
	if err != nil {
		return f.status(op, dir, err)
	}
	return f.entry(out, a)
}

// Forget hears that the kernel remembers the node no more. How often it was
// looked up does not matter: the kernel asks again for a node that has a name,
// and one without lives as long as the tree knows it is open.
func (f *FS) Forget(node, _ uint64) {
	f.modes.forget(inoOf(node))
	f.tree.Forget(inoOf(node))
}

// Mknod makes a file that is not opened at once, a pipe, a socket or a device.
func (f *FS) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	a, err := f.tree.Mknod(f.call(cancel), inoOf(in.NodeId), name, in.Mode, in.Rdev, ownerOf(&in.InHeader, in.Umask))
	return f.made("mknod", in.NodeId, a, err, out)
}

// Mkdir makes a directory.
func (f *FS) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	a, err := f.tree.Mkdir(f.call(cancel), inoOf(in.NodeId), name, in.Mode, ownerOf(&in.InHeader, in.Umask))
	return f.made("mkdir", in.NodeId, a, err, out)
}

// Symlink makes a symbolic link.
func (f *FS) Symlink(cancel <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	a, err := f.tree.Symlink(f.call(cancel), inoOf(in.NodeId), name, target, ownerOf(in, 0))
	return f.made("symlink", in.NodeId, a, err, out)
}

// Readlink tells where a symbolic link points. The kernel asks once.
func (f *FS) Readlink(cancel <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	target, err := f.tree.Readlink(f.call(cancel), inoOf(in.NodeId))
	if err != nil {
		return nil, f.status("readlink", in.NodeId, err)
	}
	return []byte(target), fuse.OK
}

// Link gives an inode a further name.
func (f *FS) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	a, err := f.tree.Link(f.call(cancel), inoOf(in.Oldnodeid), inoOf(in.NodeId), name)
	return f.made("link", in.NodeId, a, err, out)
}

// Unlink removes a name of a file.
func (f *FS) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return f.status("unlink", in.NodeId, f.tree.Unlink(f.call(cancel), inoOf(in.NodeId), name))
}

// Rmdir removes an empty directory.
func (f *FS) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return f.status("rmdir", in.NodeId, f.tree.Rmdir(f.call(cancel), inoOf(in.NodeId), name))
}

// Rename moves a name; the flags are those of renameat2.
func (f *FS) Rename(cancel <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	err := f.tree.Rename(f.call(cancel), inoOf(in.NodeId), name, inoOf(in.Newdir), newName, in.Flags)
	return f.status("rename", in.NodeId, err)
}
