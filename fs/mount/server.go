package mount

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// endPatience is how long the request loop may take to end after the mount was
// detached by force.
const endPatience = 3 * time.Second

// readAhead is how much the kernel reads ahead of a sequential reader, in KiB,
// where we may say so; its own value is 128.
const readAhead = 1024

// loop is a Server around go-fuse's request loop.
type loop struct {
	dir  string
	dev  string // major:minor of the filesystem; empty if not known
	fuse *fuse.Server
	log  *slog.Logger
	done chan struct{} // closed when no request will come any more
}

// serve makes a server of a descriptor that attach returned. It owns fd from
// then on.
func serve(dir string, fd int, fs FileSystem, opt Options, log *slog.Logger) (Server, error) {
	at := fmt.Sprintf("/dev/fd/%d", fd) // tells go-fuse that fd is attached already
	srv, err := fuse.NewServer(attached{fs}, at, protocol(opt, log))
	if err != nil {
		return nil, err
	}
	s := &loop{dir: dir, fuse: srv, log: log, done: make(chan struct{})}
	if p, ok, err := topAt(dir); err == nil && ok && p.ours() {
		s.dev = p.dev
		setReadAhead(p.dev, log)
	}
	return s, nil
}

// protocol says how go-fuse is to speak with the kernel.
func protocol(opt Options, log *slog.Logger) *fuse.MountOptions {
	level := slog.LevelWarn
	if opt.Trace {
		level = slog.LevelDebug
	}
	o := &fuse.MountOptions{
		FsName:        Name,
		Name:          Name,
		MaxWrite:      maxIO,
		MaxBackground: 64, // reads ahead that may be under way; each may wait for peers
		Debug:         opt.Trace,
		Logger:        slog.NewLogLogger(log.Handler(), level),
		PanicHandler:  func(v any) fuse.Status { return survive(log, v) },
		MaxStackDepth: stackDepth(opt.Home),
		DisableSplice: true, // answers come from memory
		// Nothing changes behind the kernel's back without our telling it, so its
		// page cache need not be dropped because a time moved.
		ExplicitDataCacheControl: true,
		EnableSymlinkCaching:     true, // a link's target never changes
		EnableAcl:                true, // in force, as permissions are
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | // O_TRUNC arrives with the open
			fuse.CAP_DONT_MASK | // a default access control list stands in for the umask
			fuse.CAP_SETXATTR_EXT | // who sets a list may lose set-group-id
			fuse.CAP_HANDLE_KILLPRIV_V2 | // else a GETXATTR before every write
			fuse.CAP_READDIRPLUS_AUTO | // attributes with names while somebody asks for them
			fuse.CAP_NO_OPENDIR_SUPPORT | // listings without OPENDIR and RELEASEDIR, kept by the kernel
			fuse.CAP_ASYNC_DIO |
			fuse.CAP_DIRECT_IO_ALLOW_MMAP,
	}
	return o
}

// stackDepth is how many stacked filesystems may lie below a passed-through
// file: one more where the state directory is on an overlay, as in containers.
func stackDepth(home string) int {
	var st unix.Statfs_t
	if home != "" && unix.Statfs(home, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return 2
	}
	return 1
}

// survive turns a panic of a request into its failure.
func survive(log *slog.Logger, v any) fuse.Status {
	log.Error("a request failed by a fault of this program", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	return fuse.EIO
}

// setReadAhead raises the kernel's readahead for the mount.
func setReadAhead(dev string, log *slog.Logger) {
	path := "/sys/class/bdi/" + dev + "/read_ahead_kb"
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d", readAhead), 0); err != nil {
		log.Debug("the kernel's readahead stays as it is", "err", err)
	}
}

// Run implements Server.
func (s *loop) Run(ctx context.Context) error {
	go func() {
		defer close(s.done)
		s.fuse.Serve()
	}()
	select {
	case <-s.done:
		return s.clear()
	case <-ctx.Done():
	}
	if err := s.ForceUnmount(); err != nil {
		return err
	}
	select {
	case <-s.done:
		return nil
	case <-time.After(endPatience):
		return &PointError{"unmount", s.dir, ErrStillServing, "their access ends with this process", nil}
	}
}

// clear removes the mount if it is still there though its connection ended.
func (s *loop) clear() error {
	if !s.attached() {
		return nil
	}
	return detach(s.dir)
}

// attached reports whether the mount at dir still is this one.
func (s *loop) attached() bool {
	p, ok, err := topAt(s.dir)
	return err == nil && ok && p.ours() && (s.dev == "" || p.dev == s.dev)
}

// Unmount implements Server.
func (s *loop) Unmount(ctx context.Context) error {
	if !s.attached() {
		return nil
	}
	return Unmount(ctx, s.dir)
}

// ForceUnmount implements Server.
func (s *loop) ForceUnmount() error {
	if !s.attached() {
		return nil
	}
	abort(s.dev)
	return detach(s.dir)
}

// attached is a filesystem whose mount exists; Init hands it the kernel.
type attached struct{ FileSystem }

// Init takes the place of the filesystem's own.
func (a attached) Init(s *fuse.Server) { a.Attach(&kernel{srv: s}) }

// kernel is the way back through go-fuse's server.
type kernel struct {
	srv *fuse.Server
}

func (k *kernel) RegisterBacking(fd int) (int32, error) {
	id, errno := k.srv.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)})
	if errno != 0 {
		return 0, errno
	}
	return id, nil
}

func (k *kernel) UnregisterBacking(id int32) error {
	if errno := k.srv.UnregisterBackingFd(id); errno != 0 {
		return errno
	}
	return nil
}

func (k *kernel) InvalidateInode(node uint64, off, n int64) error {
	return notified(k.srv.InodeNotify(node, off, n))
}

func (k *kernel) InvalidateEntry(dir uint64, name string) error {
	return notified(k.srv.EntryNotify(dir, name))
}

// notified turns a notification's status into an error; what the kernel does
// not remember need not be dropped.
func notified(st fuse.Status) error {
	if st.Ok() || st == fuse.ENOENT {
		return nil
	}
	return unix.Errno(st)
}
