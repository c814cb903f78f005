package adapter

import (
	"context"
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"skep/cache/tree"
)

// errnos says what programs are told of each error. The first that matches
// counts.
var errnos = []struct {
	err   error
	errno unix.Errno
}{
	// Content that is not here. Lost and corrupt will not get better by trying
	// again, unreachable may: it is told as what it is. They come first, so that
	// no damage ever looks like a file that is not there.
	{tree.ErrLost, unix.EIO},
	{tree.ErrCorrupt, unix.EIO},
	{tree.ErrUnreachable, unix.ETIMEDOUT},
	{context.Canceled, unix.EINTR},
	{context.DeadlineExceeded, unix.ETIMEDOUT},

	{tree.ErrNotFound, unix.ENOENT},
	{tree.ErrExists, unix.EEXIST},
	{tree.ErrNotDir, unix.ENOTDIR},
	{tree.ErrIsDir, unix.EISDIR},
	{tree.ErrNotEmpty, unix.ENOTEMPTY},
	{tree.ErrNameTooLong, unix.ENAMETOOLONG},
	{tree.ErrTooManyLinks, unix.EMLINK},
	{tree.ErrInvalid, unix.EINVAL},
	{tree.ErrNoAttr, unix.ENODATA},
	{tree.ErrTooBig, unix.E2BIG},
	{tree.ErrFileTooBig, unix.EFBIG},
	{tree.ErrNoSpace, unix.ENOSPC},
	{tree.ErrReadOnly, unix.EROFS},
	{tree.ErrPerm, unix.EPERM},
	{tree.ErrAccess, unix.EACCES},
	{tree.ErrStale, unix.ESTALE},
	{tree.ErrUnsupported, unix.EOPNOTSUPP},
	{tree.ErrNoRange, unix.ENXIO},
	{tree.ErrRange, unix.ERANGE},

	// What the local disk says of a backing file.
	{unix.ENOSPC, unix.ENOSPC},
	{unix.EDQUOT, unix.EDQUOT},
	{unix.EFBIG, unix.EFBIG},
	{unix.EROFS, unix.EROFS},
	{unix.EOPNOTSUPP, unix.EOPNOTSUPP},

	// The daemon, not the caller, has too many files open, or the machine has.
	{unix.EMFILE, unix.ENFILE},
	{unix.ENFILE, unix.ENFILE},
}

// errnoOf looks an error up; what is not known is EIO.
func errnoOf(err error) unix.Errno {
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return e.errno
		}
	}
	return unix.EIO
}

// status is the answer to a request that ended with err. What is no fault of
// the caller is logged, but not without end: a program that reads a lost file
// again and again must not fill the disk.
func (f *FS) status(op string, node uint64, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	errno := errnoOf(err)
	if errno == unix.EIO || errno == unix.ETIMEDOUT || errno == unix.ENFILE {
		f.report(op, node, err)
	}
	return fuse.Status(errno)
}

func (f *FS) report(op string, node uint64, err error) {
	if !f.logged.Allow() {
		f.unlogged.Add(1)
		return
	}
	f.log.Error("a request failed", "op", op, "path", f.tree.Path(inoOf(node)), "err", err, "unlogged", f.unlogged.Swap(0))
}
