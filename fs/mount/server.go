package mount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"skep/fs/loop"
)

// endPatience is how long the request loop may take to end after the mount was
// detached by force.
const endPatience = 3 * time.Second

// readAhead is how much the kernel reads ahead of a sequential reader, in KiB,
// where we may say so; its own value is 128.
const readAhead = 1024

// engine speaks with the kernel through a descriptor of /dev/fuse.
type engine interface {
	Kernel
	// Serve answers requests until no more will come.
	Serve() error
	// Connected reports whether the filesystem is there still, mounted anywhere or held,
	// and requests may come.
	Connected() bool
}

// served is a Server: an engine and where it is mounted.
type served struct {
	engine
	at   point // where it was mounted; without a device if that is not known
	log  *slog.Logger
	done chan error // takes what Serve ended with
}

// serve makes a server of a descriptor that attach returned. It owns fd from
// then on.
func serve(dir string, fd int, fs FileSystem, opt Options, log *slog.Logger) (Server, error) {
	e, err := newEngine(fd, fs, opt, log)
	if err != nil {
		return nil, err
	}
	s := &served{engine: e, at: point{dir: dir}, log: log, done: make(chan error, 1)}
	if p, ok, err := topAt(dir); err == nil && ok && p.ours() {
		s.at = p
		setReadAhead(p.dev, log)
	}
	return s, nil
}

// newEngine greets the kernel and hands it to the filesystem.
func newEngine(fd int, fs FileSystem, opt Options, log *slog.Logger) (engine, error) {
	if opt.Stock {
		return newStock(fd, fs, opt, log)
	}
	l, err := loop.New(fd, fs, loop.Options{
		Capabilities: capabilities, MaxIO: maxIO, MaxBackground: maxBackground,
		MaxStackDepth: stackDepth(opt.Home), Log: log, Trace: opt.Trace,
	})
	if err != nil {
		return nil, err
	}
	fs.Attach(l)
	return l, nil
}

// maxBackground is how many reads may be under way beside those of a single page, and
// writes of what was stored by mappings. The kernel sends no more of them, for whatever
// file, and each may wait for peers for as long as they may be silent, even if who
// wanted it has ended. One that waits takes some 30 KiB; what is to be written the
// kernel bounds itself, to some hundredths of the memory.
const maxBackground = 1024

// capabilities are what is asked of the kernel. It may remember content however
// times move, because nothing changes behind its back without our telling it.
const capabilities = fuse.CAP_ASYNC_READ | fuse.CAP_BIG_WRITES | fuse.CAP_FILE_OPS | fuse.CAP_PARALLEL_DIROPS |
	fuse.CAP_MAX_PAGES |
	fuse.CAP_PASSTHROUGH |
	fuse.CAP_EXPLICIT_INVAL_DATA |
	fuse.CAP_CACHE_SYMLINKS | // a link's target never changes
	fuse.CAP_ATOMIC_O_TRUNC | // O_TRUNC arrives with the open
	fuse.CAP_POSIX_ACL | // access control lists are in force, as permissions are
	fuse.CAP_DONT_MASK | // a default access control list stands in for the umask
	fuse.CAP_SETXATTR_EXT | // who sets a list may lose set-group-id
	fuse.CAP_HANDLE_KILLPRIV_V2 | // else a GETXATTR before every write
	fuse.CAP_READDIRPLUS | fuse.CAP_READDIRPLUS_AUTO | // attributes with names while somebody asks for them
	fuse.CAP_NO_OPENDIR_SUPPORT | // listings without OPENDIR and RELEASEDIR, kept by the kernel
	fuse.CAP_ASYNC_DIO |
	fuse.CAP_DIRECT_IO_ALLOW_MMAP

// stackDepth is how many stacked filesystems may lie below a passed-through
// file: one more where the state directory is on an overlay, as in containers.
func stackDepth(home string) int {
	var st unix.Statfs_t
	if home != "" && unix.Statfs(home, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return 2
	}
	return 1
}

// setReadAhead raises the kernel's readahead for the mount.
func setReadAhead(dev string, log *slog.Logger) {
	path := "/sys/class/bdi/" + dev + "/read_ahead_kb"
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d", readAhead), 0); err != nil {
		log.Debug("the kernel's readahead stays as it is", "err", err)
	}
}

// Run implements Server.
func (s *served) Run(ctx context.Context) error {
	go func() { s.done <- s.Serve() }()
	select {
	case err := <-s.done:
		return errors.Join(err, s.clear())
	case <-ctx.Done():
	}
	if err := s.ForceUnmount(); err != nil {
		return err
	}
	select {
	case err := <-s.done:
		return err
	case <-time.After(endPatience):
		return &PointError{"unmount", s.at.dir, ErrStillServing, "their access ends with this process", nil}
	}
}

// clear removes the mount if it is still there though its connection ended.
func (s *served) clear() error {
	dir, attached := s.Point()
	if !attached {
		return nil
	}
	return detachAborted(dir, s.at.dev)
}

// Point implements Server.
func (s *served) Point() (string, bool) {
	if s.at.dev == "" {
		p, ok, err := topAt(s.at.dir)
		return s.at.dir, err == nil && ok && p.ours() && s.isAt(p.dir)
	}
	p, attached := s.at.now()
	return p.dir, attached && s.isAt(p.dir)
}

// isAt reports whether a mount that the table of mounts has with the numbers of this one
// is this one. The kernel gives those of a mount that is gone to the next one, which may
// be another drive's; but not while the filesystem is connected, which therefore has to
// be asked after the table. One that is not and yet has a mount is a dead one.
func (s *served) isAt(dir string) bool { return s.Connected() || isDead(dir) }

// Mark implements Server.
func (s *served) Mark() (Mark, error) { return markOf(s.at.dir, s.at.dev) }

// Unmount implements Server.
func (s *served) Unmount(ctx context.Context) error {
	dir, attached := s.Point()
	if !attached {
		return nil
	}
	return Unmount(ctx, dir)
}

// ForceUnmount implements Server.
func (s *served) ForceUnmount() error {
	dir, attached := s.Point()
	if !attached {
		return nil
	}
	abort(s.at.dev)
	return detachAborted(dir, s.at.dev)
}
