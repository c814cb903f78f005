package hosted_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// recorder is a filesystem in memory, mounted, that remembers in which order
// what was written and what was flushed: so it can tell what a disk may have
// after a power cut at any moment.
type recorder struct {
	mu   sync.Mutex // guards the fields below
	log  []event
	next int // number of the next file or folder
}

// event is one thing that happened to the disk, or a mark of the test.
type event struct {
	what what
	file int   // that was written, resized or flushed; or the folder that was flushed
	off  int64 // of what was written; or the new size
	data []byte
	names
}

type what int

const (
	written what = iota
	resized
	flushed
	named // names changed: a file was made, renamed or removed
)

// names is a change of names: file becomes known as to, and from is gone.
type names struct{ from, to name }

// name is an entry of a folder; the zero name is none.
type name struct {
	dir   int
	name  string
	file  int // under that name
	isDir bool
}

// rootDir is the number of the mounted folder, marksFile that of a file in it
// which is there from the beginning, for the marks of the test.
const (
	rootDir   = 1
	marksFile = 2
	marksName = "marks"
)

// record mounts a recorder at dir until the test ends. It skips the test where
// nothing can be mounted.
func record(t *testing.T, dir string) *recorder {
	t.Helper()
	r := &recorder{next: marksFile}
	srv, err := fs.Mount(dir, &folder{r: r, number: rootDir}, &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true}})
	if err != nil {
		t.Skipf("no FUSE: %v", err)
	}
	t.Cleanup(func() {
		if err := srv.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *recorder) add(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, e)
}

// events returns the first n, or all if n is negative.
func (r *recorder) events(n int) []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n < 0 {
		n = len(r.log)
	}
	return r.log[:n]
}

func (r *recorder) number() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	return r.next
}

// folder is a directory of the recorder. go-fuse keeps its entries.
type folder struct {
	fs.Inode
	r      *recorder
	number int
}

// OnAdd puts the file for the marks in its place.
func (d *folder) OnAdd(ctx context.Context) {
	if d.number == rootDir {
		marks := d.NewPersistentInode(ctx, &plain{r: d.r, number: marksFile}, fs.StableAttr{Mode: syscall.S_IFREG})
		d.AddChild(marksName, marks, true)
	}
}

var (
	_ fs.NodeOnAdder  = (*folder)(nil)
	_ fs.NodeCreater  = (*folder)(nil)
	_ fs.NodeMkdirer  = (*folder)(nil)
	_ fs.NodeUnlinker = (*folder)(nil)
	_ fs.NodeRmdirer  = (*folder)(nil)
	_ fs.NodeRenamer  = (*folder)(nil)
	_ fs.NodeFsyncer  = (*folder)(nil)
	_ fs.NodeStatfser = (*folder)(nil)
)

func (d *folder) child(n string) name {
	switch c := d.GetChild(n).Operations().(type) {
	case *folder:
		return name{d.number, n, c.number, true}
	case *plain:
		return name{d.number, n, c.number, false}
	}
	panic("a child that is neither")
}

func (d *folder) Create(ctx context.Context, n string, _, _ uint32, _ *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	f := &plain{r: d.r, number: d.r.number()}
	d.r.add(event{what: named, names: names{to: name{d.number, n, f.number, false}}})
	return d.NewPersistentInode(ctx, f, fs.StableAttr{Mode: syscall.S_IFREG}), nil, 0, 0
}

func (d *folder) Mkdir(ctx context.Context, n string, _ uint32, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	c := &folder{r: d.r, number: d.r.number()}
	d.r.add(event{what: named, names: names{to: name{d.number, n, c.number, true}}})
	return d.NewPersistentInode(ctx, c, fs.StableAttr{Mode: syscall.S_IFDIR}), 0
}

func (d *folder) Unlink(_ context.Context, n string) syscall.Errno {
	d.r.add(event{what: named, names: names{from: d.child(n)}})
	return 0
}

func (d *folder) Rmdir(ctx context.Context, n string) syscall.Errno {
	if len(d.GetChild(n).Children()) > 0 {
		return syscall.ENOTEMPTY
	}
	return d.Unlink(ctx, n)
}

func (d *folder) Rename(_ context.Context, n string, to fs.InodeEmbedder, toName string, _ uint32) syscall.Errno {
	from := d.child(n)
	d.r.add(event{what: named, names: names{from: from, to: name{to.(*folder).number, toName, from.file, from.isDir}}})
	return 0
}

func (d *folder) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	d.r.add(event{what: flushed, file: d.number})
	return 0
}

func (d *folder) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno { return room(out) }

func (f *plain) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno { return room(out) }

// room says that there is plenty.
func room(out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Blocks, out.Bfree, out.Bavail = 4096, 1<<20, 1<<20, 1<<20
	return 0
}

// plain is a file of the recorder.
type plain struct {
	fs.Inode
	r      *recorder
	number int

	mu   sync.Mutex // guards data
	data []byte
}

var (
	_ fs.NodeOpener    = (*plain)(nil)
	_ fs.NodeReader    = (*plain)(nil)
	_ fs.NodeWriter    = (*plain)(nil)
	_ fs.NodeFsyncer   = (*plain)(nil)
	_ fs.NodeAllocater = (*plain)(nil)
	_ fs.NodeGetattrer = (*plain)(nil)
	_ fs.NodeSetattrer = (*plain)(nil)
	_ fs.NodeStatfser  = (*plain)(nil)
)

func (f *plain) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, 0, 0
}

func (f *plain) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := copy(p, f.data[min(off, int64(len(f.data))):])
	return fuse.ReadResultData(p[:n]), 0
}

func (f *plain) Write(_ context.Context, _ fs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := event{what: written, file: f.number, off: off, data: slices.Clone(p)}
	f.data = e.apply(f.data)
	f.r.add(e)
	return uint32(len(p)), 0
}

func (f *plain) resize(n int64) {
	e := event{what: resized, file: f.number, off: n}
	f.data = e.apply(f.data)
	f.r.add(e)
}

func (f *plain) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.r.add(event{what: flushed, file: f.number})
	return 0
}

func (f *plain) Allocate(_ context.Context, _ fs.FileHandle, off, size uint64, _ uint32) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	if end := int64(off + size); end > int64(len(f.data)) {
		f.resize(end)
	}
	return 0
}

func (f *plain) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	out.Mode, out.Size = 0o600, uint64(len(f.data))
	return 0
}

func (f *plain) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n, ok := in.GetSize(); ok {
		f.resize(int64(n))
	}
	out.Mode, out.Size = 0o600, uint64(len(f.data))
	return 0
}

// apply returns what a file has after an event.
func (e *event) apply(data []byte) []byte {
	end := e.off + int64(len(e.data))
	if grow := end - int64(len(data)); grow > 0 {
		data = append(data, make([]byte, grow)...)
	}
	if e.what == resized {
		return data[:end]
	}
	copy(data[e.off:], e.data)
	return data
}

// fate says what becomes of what was not flushed.
type fate int

const (
	allLost fate = iota
	allThere
	someThere // in any order, and torn
	firstThere
	fates
)

// after returns what the disk may have when the power is cut after the first n
// events, as fate and random have it.
func (r *recorder) after(n int, how fate, random *rand.Rand) *image {
	log := r.events(n)
	last := map[int]int{} // when each file and folder was last flushed
	for i, e := range log {
		if e.what == flushed {
			last[e.file] = i + 1
		}
	}
	cut := random.IntN(n + 1)
	survives := func(i int, by ...int) bool {
		for _, f := range by {
			if f != 0 && i < last[f] {
				return true
			}
		}
		return how == allThere || how == someThere && random.IntN(2) == 0 || how == firstThere && i < cut
	}
	im := &image{files: map[int][]byte{}, dirs: map[int]map[string]name{}}
	for i, e := range log {
		switch {
		case e.what == named && survives(i, e.from.dir, e.to.dir):
			im.rename(e.names)
		case (e.what == written || e.what == resized) && survives(i, e.file):
			if how == someThere && i >= last[e.file] {
				e = e.torn(random)
			}
			im.files[e.file] = e.apply(im.files[e.file])
		}
	}
	return im
}

// sector is what a disk writes whole.
const sector = 512

// torn is the event as it is when only some of its sectors got through.
func (e event) torn(random *rand.Rand) event {
	if len(e.data) <= sector || random.IntN(2) == 0 {
		return e
	}
	from := random.IntN(len(e.data)/sector) * sector
	to := from + (1+random.IntN((len(e.data)-from)/sector))*sector
	e.off, e.data = e.off+int64(from), e.data[from:to]
	return e
}

// image is what is on a disk.
type image struct {
	files map[int][]byte
	dirs  map[int]map[string]name
}

func (im *image) rename(n names) {
	if n.from.dir != 0 && im.dirs[n.from.dir][n.from.name].file == n.from.file {
		delete(im.dirs[n.from.dir], n.from.name)
	}
	if n.to.dir == 0 {
		return
	}
	if im.dirs[n.to.dir] == nil {
		im.dirs[n.to.dir] = map[string]name{}
	}
	im.dirs[n.to.dir][n.to.name] = n.to
}

// write puts the image into an empty directory.
func (im *image) write(t *testing.T, dir string) {
	t.Helper()
	im.writeDir(t, rootDir, dir, 0)
}

func (im *image) writeDir(t *testing.T, number int, at string, depth int) {
	t.Helper()
	if depth > 8 {
		t.Fatal("the image has a circle")
	}
	for _, n := range slices.Sorted(maps.Keys(im.dirs[number])) {
		child, path := im.dirs[number][n], filepath.Join(at, n)
		if !child.isDir {
			if err := os.WriteFile(path, im.files[child.file], 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		im.writeDir(t, child.file, path, depth+1)
	}
}
