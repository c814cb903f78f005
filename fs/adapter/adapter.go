package adapter

import (
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/time/rate"

	"skep/cache/tree"
	"skep/fs/mount"
)

// remember is how long the kernel may rely on what it was told.
const remember = time.Hour

// Options say how the tree is shown.
type Options struct {
	// UID and GID, where set, are shown as the owner of every file.
	UID, GID *uint32
	// Log takes failures that are not the caller's; nil discards them.
	Log *slog.Logger
	// Now is the clock for "set this time to now"; nil is time.Now.
	Now func() time.Time
}

// FS shows a tree to the kernel. It serves one mount, once.
type FS struct {
	fuse.RawFileSystem // says ENOSYS to what is not here

	tree *tree.Tree
	opt  Options
	log  *slog.Logger

	kernel   mount.Kernel // set by Attach
	files    fileTable
	modes    modeTable
	notes    notices
	storing  chan struct{} // has an element for each notice of writeStores
	logged   *rate.Limiter // how many failures may still be logged
	unlogged atomic.Int64  // failures that were not
}

// Format hides keys, and what leads to them, from every formatting verb.
func (*FS) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "adapter.FS(…)") }

var _ mount.FileSystem = (*FS)(nil)

// New returns a filesystem that shows t, to be given to mount.Mount.
func New(t *tree.Tree, opt Options) *FS {
	f := &FS{RawFileSystem: fuse.NewDefaultRawFileSystem(), tree: t, opt: opt, log: opt.Log,
		logged: rate.NewLimiter(2, 100), storing: make(chan struct{}, mostStoring)}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if f.opt.Now == nil {
		f.opt.Now = time.Now
	}
	f.files.init()
	f.modes.init()
	f.notes.init()
	return f
}

// String names the filesystem in go-fuse's messages.
func (f *FS) String() string { return mount.Name }

// Attach implements mount.FileSystem.
func (f *FS) Attach(k mount.Kernel) {
	f.kernel = k
	f.notes.start(k, f.log)
}

// OnUnmount is called after the last request. What the kernel had open without
// closing it, because it was unmounted by force, is given up here.
func (f *FS) OnUnmount() {
	f.notes.stop()
	for _, h := range f.files.takeAll() {
		ino := h.Ino()
		f.countOut(h)
		h.Abandon()
		f.tree.Forget(ino)
	}
}

// Passthrough reports whether the kernel still is offered backing files: false
// after it has refused one.
func (f *FS) Passthrough() bool { return !f.modes.refused.Load() }

// nodeOf is the kernel's name of an inode.
func nodeOf(ino tree.Ino) uint64 { return uint64(ino) }

// inoOf is the inode that a node id names.
func inoOf(node uint64) tree.Ino { return tree.Ino(node) }

// ownerOf is whom an inode that a request makes belongs to.
func ownerOf(h *fuse.InHeader, umask uint32) tree.Owner {
	return tree.Owner{UID: h.Uid, GID: h.Gid, Umask: umask}
}
