package mount

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// stock is go-fuse's own request loop, for comparison.
type stock struct {
	srv   *fuse.Server
	ended atomic.Bool // Serve returned
}

func newStock(fd int, fs FileSystem, opt Options, log *slog.Logger) (engine, error) {
	at := fmt.Sprintf("/dev/fd/%d", fd) // tells go-fuse that fd is attached already
	srv, err := fuse.NewServer(attached{fs}, at, protocol(opt, log))
	if err != nil {
		return nil, err
	}
	return &stock{srv: srv}, nil
}

// protocol says how go-fuse is to speak with the kernel.
func protocol(opt Options, log *slog.Logger) *fuse.MountOptions {
	level := slog.LevelWarn
	if opt.Trace {
		level = slog.LevelDebug
	}
	return &fuse.MountOptions{
		FsName:                   Name,
		Name:                     Name,
		MaxWrite:                 maxIO,
		MaxBackground:            maxBackground,
		Debug:                    opt.Trace,
		Logger:                   slog.NewLogLogger(log.Handler(), level),
		PanicHandler:             func(v any) fuse.Status { return survive(log, v) },
		MaxStackDepth:            stackDepth(opt.Home),
		DisableSplice:            true, // answers come from memory
		ExplicitDataCacheControl: true,
		ExtraCapabilities:        capabilities,
	}
}

// Serve implements engine.
func (k *stock) Serve() error {
	k.srv.Serve()
	k.ended.Store(true)
	return nil
}

// Connected implements engine. It finds out when Serve returns.
func (k *stock) Connected() bool { return !k.ended.Load() }

// Waits implements Waiter: each request has a goroutine of its own here.
func (k *stock) Waits(<-chan struct{}) {}

// Knows implements Kernel.
func (k *stock) Knows(flag uint64) bool {
	return k.srv.KernelSettings().Flags64()&capabilities&flag != 0
}

// survive turns a panic of a request into its failure.
func survive(log *slog.Logger, v any) fuse.Status {
	log.Error("a request failed by a fault of this program", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	return fuse.EIO
}

// attached is a filesystem whose mount exists; Init hands it the kernel.
type attached struct{ FileSystem }

// Init takes the place of the filesystem's own.
func (a attached) Init(s *fuse.Server) { a.Attach(&stock{srv: s}) }

func (k *stock) RegisterBacking(fd int) (int32, error) {
	id, errno := k.srv.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)})
	if errno != 0 {
		return 0, errno
	}
	return id, nil
}

func (k *stock) UnregisterBacking(id int32) error {
	if errno := k.srv.UnregisterBackingFd(id); errno != 0 {
		return errno
	}
	return nil
}

func (k *stock) InvalidateInode(node uint64, off, n int64) error {
	return notified(k.srv.InodeNotify(node, off, n))
}

// notified turns a notification's status into an error; what the kernel does
// not remember need not be dropped.
func notified(st fuse.Status) error {
	if st.Ok() || st == fuse.ENOENT {
		return nil
	}
	return unix.Errno(st)
}
