package adapter

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// stored are the name spaces of extended attributes that a drive keeps. Access
// control lists (system.posix_acl_*) are not among them: they would look as if
// they were in force.
var stored = []string{"user.", "trusted.", "security."}

func isStored(name string) bool {
	for _, space := range stored {
		if strings.HasPrefix(name, space) && len(name) > len(space) {
			return true
		}
	}
	return false
}

// GetXAttr reads an extended attribute. With an empty dest only its size is
// asked for.
func (f *FS) GetXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if !isStored(name) {
		return 0, fuse.Status(unix.EOPNOTSUPP)
	}
	v, err := f.tree.GetXattr(call{cancel}, inoOf(in.NodeId), name)
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
	names, err := f.tree.ListXattr(call{cancel}, inoOf(in.NodeId))
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
	if !isStored(name) {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	err := f.tree.SetXattr(call{cancel}, inoOf(in.NodeId), name, value, int(in.Flags))
	return f.status("setxattr", in.NodeId, err)
}

// RemoveXAttr removes an extended attribute.
func (f *FS) RemoveXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if !isStored(name) {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	return f.status("removexattr", in.NodeId, f.tree.RemoveXattr(call{cancel}, inoOf(in.NodeId), name))
}
