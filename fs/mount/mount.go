package mount

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Name is the subtype of our mounts, "fuse.skep" in the table of mounts, by which they
// are known, and their source unless Options has another one.
const Name = "skep"

// maxIO is the largest read or write request, in bytes. It is what the kernel
// allows without fs.fuse.max_pages_limit being raised.
const maxIO = 1 << 20

// FileSystem answers the kernel's requests. Its own Init is not called: Attach
// takes its place.
type FileSystem interface {
	fuse.RawFileSystem
	// Attach is called once, before the first request, with what the filesystem
	// may ask of the kernel while it is mounted.
	Attach(Kernel)
}

// Kernel is the way back: what a mounted filesystem may ask of the kernel. All
// of it may be called concurrently.
type Kernel interface {
	Backer
	Invalidator
	Waiter
	// Knows reports whether the kernel agreed to a FUSE_INIT flag that it was asked for.
	Knows(flag uint64) bool
}

// Backer lets the kernel read and write files of ours by itself.
type Backer interface {
	// RegisterBacking makes an open file known; the id serves in answers to open
	// requests. The descriptor may be closed afterwards.
	RegisterBacking(fd int) (id int32, err error)
	// UnregisterBacking ends an id. Open files that use it keep doing so.
	UnregisterBacking(id int32) error
}

// Invalidator tells the kernel that what it remembers changed behind its back.
// It must not be called from within a request (but for one that finds data and holes,
// for which the kernel holds nothing that others need), nor while holding a lock that a
// request may want: the kernel may first want an answer to one. What the kernel
// does not remember is no error.
type Invalidator interface {
	// InvalidateInode drops attributes and, if off is not negative, n bytes of
	// content from off on (all that follow if n is 0), having written first what was
	// stored into them by mappings.
	InvalidateInode(node uint64, off, n int64) error
}

// Waiter hears which requests hold others up.
type Waiter interface {
	// Waits says that the request with this cancel channel is about to wait for
	// something that may take long, such as peers. It may be said more than once.
	Waits(cancel <-chan struct{})
}

// Server is a mounted filesystem.
type Server interface {
	// Run answers requests until the drive is unmounted, by whomever. When ctx
	// ends first, it unmounts by force. It is called once.
	Run(ctx context.Context) error
	// Point is where the drive is, which is not where it was mounted if a folder above
	// was renamed since, and whether it is there still. One that was detached goes on for
	// programs that have files of it open, and where another mount namespace has a copy
	// of the mount; Run returns when the last of them is gone.
	Point() (dir string, attached bool)
	// Mark is what tells this mount and this process from others.
	Mark() (Mark, error)
	// Unmount takes the drive away if nobody uses it; else the error is a
	// *BusyError that names who does. Run returns afterwards, but for copies.
	Unmount(ctx context.Context) error
	// ForceUnmount takes the drive away at once. System calls that wait for it
	// end with ENOTCONN or ECONNABORTED, and so do all later ones through files
	// that are still open.
	ForceUnmount() error
}

// Mount checks dir, attaches the filesystem to it and returns a server whose
// Run must be called next: until then programs that look into dir wait. Errors
// about dir are a *PointError with one of the reasons of this package.
func Mount(dir string, fs FileSystem, opt Options) (Server, error) {
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	dir, err := prepare(dir, opt, log)
	if err != nil {
		return nil, err
	}
	fd, err := attach(dir, opt)
	if err != nil {
		return nil, err
	}
	s, err := serve(dir, fd, fs, opt, log)
	if err != nil {
		_ = detach(dir)
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return s, nil
}
