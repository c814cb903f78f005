package adapter

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"skep/cache/acl"
)

// stored are the name spaces of extended attributes that a drive keeps, beside
// access control lists.
var stored = []string{"user.", "trusted.", "security."}

func isACL(name string) bool { return name == acl.Access || name == acl.Default }

// check tells whether a drive keeps an attribute of this name.
func check(name string) fuse.Status {
	if isACL(name) {
		return fuse.OK
	}
	for _, space := range stored {
		if name == space {
			return fuse.EINVAL
		}
		if strings.HasPrefix(name, space) {
			return fuse.OK
		}
	}
	return fuse.Status(unix.EOPNOTSUPP)
}

// GetXAttr reads an extended attribute. With an empty dest only its size is
// asked for.
func (f *FS) GetXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if st := check(name); !st.Ok() {
		return 0, st
	}
	v, err := f.tree.GetXattr(f.call(cancel), inoOf(in.NodeId), name)
	if err != nil {
		return 0, f.status("getxattr", in.NodeId, err)
	}
	return fill(dest, v)
}

// fill answers with a value whose size the caller may not have known.
func fill(dest, value []byte) (uint32, fuse.Status) {
	n := uint32(len(value))
	if len(dest) < len(value) {
		return n, fuse.ERANGE // as the answer to an empty dest, go-fuse takes it for the size
	}
	copy(dest, value)
	return n, fuse.OK
}

// ListXAttr lists the names of extended attributes, each ended by a zero byte.
// The trusted ones are root's to know.
func (f *FS) ListXAttr(cancel <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	names, err := f.tree.ListXattr(f.call(cancel), inoOf(in.NodeId))
	if err != nil {
		return 0, f.status("listxattr", in.NodeId, err)
	}
	var list []byte
	for _, name := range names {
		if in.Uid != 0 && strings.HasPrefix(name, "trusted.") {
			continue
		}
		list = append(append(list, name...), 0)
	}
	return fill(dest, list)
}

// SetXAttr sets an extended attribute.
func (f *FS) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	if st := check(name); !st.Ok() {
		return st
	}
	var err error
	if isACL(name) {
		err = f.tree.SetACL(f.call(cancel), inoOf(in.NodeId), name, value, in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0)
	} else {
		err = f.tree.SetXattr(f.call(cancel), inoOf(in.NodeId), name, value, int(in.Flags))
	}
	f.notes.attributes(inoOf(in.NodeId))
	return f.status("setxattr", in.NodeId, err)
}

// RemoveXAttr removes an extended attribute.
func (f *FS) RemoveXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if st := check(name); !st.Ok() {
		return st
	}
	remove := f.tree.RemoveXattr
	if isACL(name) {
		remove = f.tree.RemoveACL
	}
	err := remove(f.call(cancel), inoOf(in.NodeId), name)
	f.notes.attributes(inoOf(in.NodeId))
	return f.status("removexattr", in.NodeId, err)
}
