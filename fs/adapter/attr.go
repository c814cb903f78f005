package adapter

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"skep/cache/tree"
)

// blockSize is the unit in which programs are advised to read and write.
const blockSize = 4096

// show is a tree's attributes as the kernel takes them.
func (f *FS) show(a tree.Attr) fuse.Attr {
	out := fuse.Attr{
		Ino: uint64(a.Ino), Size: uint64(a.Size), Blocks: uint64(a.Blocks),
		Atime: uint64(a.Atime.Sec), Atimensec: a.Atime.Nsec,
		Mtime: uint64(a.Mtime.Sec), Mtimensec: a.Mtime.Nsec,
		Ctime: uint64(a.Ctime.Sec), Ctimensec: a.Ctime.Nsec,
		Mode: a.Mode, Nlink: a.Nlink, Owner: fuse.Owner{Uid: a.UID, Gid: a.GID}, Rdev: a.Rdev,
		Blksize: blockSize,
	}
	if f.opt.UID != nil {
		out.Uid = *f.opt.UID
	}
	if f.opt.GID != nil {
		out.Gid = *f.opt.GID
	}
	return out
}

// attrPatience is how long the kernel may remember attributes. A file without
// content has no pages to store into: whatever gives it some makes the kernel
// ask again. That a file is all a hole is true until somebody maps it. Since the tree
// was asked, a file may have been opened, or closed, which leaves its mappings.
func (f *FS) attrPatience(a tree.Attr) time.Duration {
	unseen := a.Mapped || a.Passed && f.Passthrough() || f.modes.changesUnseen(a.Ino)
	if a.Size > 0 && (a.Blocks == 0 || unseen) {
		return 0
	}
	return remember
}

// entry fills in the answer to a request that found or made a name.
func (f *FS) entry(out *fuse.EntryOut, a tree.Attr) fuse.Status {
	out.NodeId = nodeOf(a.Ino)
	out.Attr = f.show(a)
	out.SetEntryTimeout(remember)
	out.SetAttrTimeout(f.attrPatience(a))
	return fuse.OK
}

func (f *FS) attrs(out *fuse.AttrOut, a tree.Attr) fuse.Status {
	out.Attr = f.show(a)
	out.SetTimeout(f.attrPatience(a))
	return fuse.OK
}

// GetAttr answers stat.
func (f *FS) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	a, err := f.tree.Attr(f.call(cancel), inoOf(in.NodeId))
	if err != nil {
		return f.status("getattr", in.NodeId, err)
	}
	return f.attrs(out, a)
}

// Statx answers statx where the time of birth was asked for.
func (f *FS) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	a, err := f.tree.Attr(f.call(cancel), inoOf(in.NodeId))
	if err != nil {
		return f.status("statx", in.NodeId, err)
	}
	s := f.show(a)
	out.SetTimeout(f.attrPatience(a))
	out.Statx = fuse.Statx{
		Mask: unix.STATX_BASIC_STATS | unix.STATX_BTIME, Blksize: s.Blksize,
		Nlink: s.Nlink, Uid: s.Uid, Gid: s.Gid, Mode: uint16(s.Mode), Ino: s.Ino, Size: s.Size, Blocks: s.Blocks,
		Atime: sxTime(a.Atime), Btime: sxTime(a.Btime), Ctime: sxTime(a.Ctime), Mtime: sxTime(a.Mtime),
		RdevMajor: a.Rdev >> 8 & 0xfff, RdevMinor: a.Rdev&0xff | a.Rdev>>12&0xfff00,
	}
	return fuse.OK
}

func sxTime(t tree.Time) fuse.SxTime { return fuse.SxTime{Sec: uint64(t.Sec), Nsec: t.Nsec} }

// SetAttr answers chmod, chown, truncate and utimes.
func (f *FS) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	a, err := f.tree.SetAttr(f.call(cancel), inoOf(in.NodeId), f.wanted(in))
	if err != nil {
		return f.status("setattr", in.NodeId, err)
	}
	return f.attrs(out, a)
}

// wanted is what a request wants to be changed.
func (f *FS) wanted(in *fuse.SetAttrIn) tree.SetAttr {
	var s tree.SetAttr
	has := func(bit uint32) bool { return in.Valid&bit != 0 }
	if has(fuse.FATTR_MODE) {
		mode := in.Mode & 0o7777
		s.Mode = &mode
	}
	if has(fuse.FATTR_UID) {
		uid := in.Uid
		s.UID = &uid
	}
	if has(fuse.FATTR_GID) {
		gid := in.Gid
		s.GID = &gid
	}
	if has(fuse.FATTR_SIZE) {
		size := int64(in.Size)
		s.Size = &size
		if has(fuse.FATTR_FH) {
			if e, ok := f.files.get(in.Fh); ok {
				s.File = e.File
			}
		}
	}
	now := tree.TimeOf(f.opt.Now())
	s.Atime = wantedTime(has(fuse.FATTR_ATIME), has(fuse.FATTR_ATIME_NOW), now, in.Atime, in.Atimensec)
	s.Mtime = wantedTime(has(fuse.FATTR_MTIME), has(fuse.FATTR_MTIME_NOW), now, in.Mtime, in.Mtimensec)
	s.Ctime = wantedTime(has(fuse.FATTR_CTIME), false, now, in.Ctime, in.Ctimensec)
	// A request that says nothing at all is a change of owner that changes nothing, or
	// comes before a write (to a passed-through file, or by fallocate) of somebody who
	// may not leave set-user-id behind.
	s.KillOwner = in.Valid == 0 || has(fuse.FATTR_KILL_SUIDGID) && (s.UID != nil || s.GID != nil)
	s.KillPriv = has(fuse.FATTR_KILL_SUIDGID) && !s.KillOwner
	return s
}

func wantedTime(set, toNow bool, now tree.Time, sec uint64, nsec uint32) *tree.Time {
	switch {
	case set && toNow:
		return &now
	case set:
		return &tree.Time{Sec: int64(sec), Nsec: nsec}
	}
	return nil
}

// StatFs answers df. It never waits.
func (f *FS) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	s, err := f.tree.StatFS(f.call(cancel))
	if err != nil {
		return f.status("statfs", in.NodeId, err)
	}
	*out = fuse.StatfsOut{
		Blocks: uint64(s.Total) / blockSize, Bfree: uint64(s.Free) / blockSize, Bavail: uint64(s.Avail) / blockSize,
		Files: s.Files, Ffree: s.FreeFiles, Bsize: blockSize, Frsize: blockSize, NameLen: s.NameLen,
	}
	return fuse.OK
}
