package adapter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"skep/cache/backing"
	"skep/cache/state"
	"skep/cache/tree"
)

// kernel stands for the other side: it remembers what it was told and asked.
type kernel struct {
	mu      sync.Mutex // guards all below
	refuse  error      // what registering a backing file ends with
	backing map[int32]bool
	last    int32
	inodes  map[uint64]int64
	told    chan struct{} // receives for each notice
	caps    uint64        // what it agreed to
	waits   []<-chan struct{}
	busy    chan struct{} // notices of inodes wait until it is closed; nil: they do not
}

func newKernel() *kernel {
	return &kernel{backing: map[int32]bool{}, inodes: map[uint64]int64{}, told: make(chan struct{}, 64), caps: fuse.CAP_DIRECT_IO_ALLOW_MMAP}
}

func (k *kernel) Knows(flag uint64) bool { return k.caps&flag != 0 }

func (k *kernel) RegisterBacking(int) (int32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refuse != nil {
		return 0, k.refuse
	}
	k.last++
	k.backing[k.last] = true
	return k.last, nil
}

func (k *kernel) UnregisterBacking(id int32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.backing[id] {
		return unix.ENOENT
	}
	delete(k.backing, id)
	return nil
}

func (k *kernel) Waits(cancel <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.waits = append(k.waits, cancel)
}

func (k *kernel) InvalidateInode(node uint64, off, _ int64) error {
	k.mu.Lock()
	k.inodes[node] = off
	busy := k.busy
	k.mu.Unlock()
	k.told <- struct{}{}
	if busy != nil {
		<-busy
	}
	return nil
}

// newFS is a filesystem over an empty tree, attached to a made-up kernel.
func newFS(t *testing.T, opt Options) (*FS, *kernel) {
	t.Helper()
	dir := t.TempDir()
	st, err := state.Open(filepath.Join(dir, "state"))
	must(t, err)
	t.Cleanup(func() { st.Close() })
	files, err := backing.Open(filepath.Join(dir, "files"))
	must(t, err)
	tr, err := tree.Open(tree.Options{State: st, Backing: files, Device: 1, Passthrough: true})
	must(t, err)
	f, k := New(tr, opt), newKernel()
	f.Attach(k)
	t.Cleanup(f.OnUnmount)
	return f, k
}

// create makes and opens a file.
func create(t *testing.T, f *FS, name string, flags uint32) fuse.CreateOut {
	t.Helper()
	var out fuse.CreateOut
	in := fuse.CreateIn{InHeader: fuse.InHeader{NodeId: 1}, Flags: flags, Mode: unix.S_IFREG | 0o644}
	wantStatus(t, f.Create(nil, &in, name, &out), fuse.OK)
	return out
}

func open(t *testing.T, f *FS, node uint64, flags uint32) fuse.OpenOut {
	t.Helper()
	var out fuse.OpenOut
	wantStatus(t, f.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: node}, Flags: flags}, &out), fuse.OK)
	return out
}

func release(f *FS, fh uint64) { f.Release(nil, &fuse.ReleaseIn{Fh: fh}) }

// TestModesAreNotMixed: all opens of an inode go the way of the first.
func TestModesAreNotMixed(t *testing.T) {
	f, k := newFS(t, Options{})
	passed := create(t, f, "passed", unix.O_RDWR|unix.O_TRUNC)
	if passed.OpenFlags&fuse.FOPEN_PASSTHROUGH == 0 {
		t.Fatal("a new file should be passed through")
	}
	var outs []fuse.OpenOut
	for _, flags := range []uint32{unix.O_RDONLY, unix.O_RDWR | unix.O_APPEND, unix.O_RDONLY | unix.O_DIRECT} {
		o := open(t, f, passed.NodeId, flags)
		if o.OpenFlags&fuse.FOPEN_PASSTHROUGH == 0 || o.BackingID != passed.BackingID || o.OpenFlags&(fuse.FOPEN_DIRECT_IO|fuse.FOPEN_KEEP_CACHE) != 0 {
			t.Errorf("flags %x while passed through: %+v", flags, o)
		}
		outs = append(outs, o)
	}
	release(f, passed.Fh)
	for _, o := range outs {
		if len(k.backing) != 1 {
			t.Error("the backing file was ended while the inode is open")
		}
		release(f, o.Fh)
	}
	if len(k.backing) != 0 {
		t.Errorf("left registered: %v", k.backing)
	}

	first := create(t, f, "cached", unix.O_RDWR|unix.O_APPEND)
	second := open(t, f, first.NodeId, unix.O_RDWR|unix.O_TRUNC)
	direct := open(t, f, first.NodeId, unix.O_RDWR|unix.O_DIRECT)
	if (first.OpenFlags|second.OpenFlags|direct.OpenFlags)&fuse.FOPEN_PASSTHROUGH != 0 {
		t.Error("passed through beside an open that is not")
	}
	if second.OpenFlags&fuse.FOPEN_KEEP_CACHE == 0 || direct.OpenFlags&fuse.FOPEN_DIRECT_IO != 0 {
		t.Errorf("got %+v and %+v", second, direct)
	}
}

// TestPastThePageCache: the kernel does not see in its pages what is written past them.
// So all go past them while one does that did not ask for it, and what the kernel may
// have taken meanwhile, for a mapping say, it drops when the file is opened next.
func TestPastThePageCache(t *testing.T) {
	const past, keep = fuse.FOPEN_DIRECT_IO, fuse.FOPEN_KEEP_CACHE
	f, k := newFS(t, Options{})
	k.refuse = unix.EPERM // nothing is passed through
	wantFlags := func(what string, o fuse.OpenOut, want uint32) {
		t.Helper()
		if got := o.OpenFlags & (past | keep | fuse.FOPEN_PASSTHROUGH); got != want {
			t.Errorf("%s: flags %x, not %x", what, got, want)
		}
	}
	w := create(t, f, "db-journal", unix.O_WRONLY)
	wantFlags("who makes a rollback journal", w.OpenOut, past)
	r := open(t, f, w.NodeId, unix.O_RDONLY)
	wantFlags("who reads it meanwhile", r, past)
	release(f, w.Fh)
	wantFlags("who writes it while that one has it open", open(t, f, w.NodeId, unix.O_WRONLY), past)
	again := create(t, f, "other-journal", unix.O_RDWR)
	release(f, again.Fh)
	r = open(t, f, again.NodeId, unix.O_RDONLY)
	wantFlags("who opens it when nobody else has it open", r, 0)
	release(f, r.Fh)
	wantFlags("who does so next", open(t, f, again.NodeId, unix.O_RDONLY), keep)

	only := create(t, f, "third-journal", unix.O_WRONLY)
	release(f, only.Fh)
	wantFlags("who reads what was only written", open(t, f, only.NodeId, unix.O_RDONLY), keep)

	k.caps = 0
	wantFlags("on a kernel that does not map such files", create(t, f, "fourth-journal", unix.O_WRONLY).OpenOut, keep)
}

// TestRefusedBackingFile: one refusal ends passthrough for the mount, and files
// work on.
func TestRefusedBackingFile(t *testing.T) {
	var log bytes.Buffer
	f, k := newFS(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	good := create(t, f, "good", unix.O_RDWR|unix.O_TRUNC)
	k.refuse = unix.EPERM
	for _, name := range []string{"a", "b"} {
		out := create(t, f, name, unix.O_RDWR|unix.O_TRUNC)
		if out.OpenFlags&fuse.FOPEN_PASSTHROUGH != 0 {
			t.Error("passed through though refused")
		}
		in := fuse.WriteIn{InHeader: fuse.InHeader{NodeId: out.NodeId}, Fh: out.Fh}
		if n, st := f.Write(nil, &in, []byte("text")); n != 4 || !st.Ok() {
			t.Errorf("write: %d, %v", n, st)
		}
		wantContent(t, f, out.Fh, "text")
	}
	if f.Passthrough() {
		t.Error("passthrough should be off")
	}
	if o := open(t, f, good.NodeId, unix.O_RDONLY); o.OpenFlags&fuse.FOPEN_PASSTHROUGH == 0 {
		t.Error("an inode that is passed through must stay so while it is open")
	}
	if n := strings.Count(log.String(), "no backing files"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
}

func wantContent(t *testing.T, f *FS, fh uint64, want string) {
	t.Helper()
	buf := make([]byte, 100)
	r, st := f.Read(nil, &fuse.ReadIn{Fh: fh, Size: 100}, buf)
	wantStatus(t, st, fuse.OK)
	if b, _ := r.Bytes(buf); string(b) != want {
		t.Errorf("read %q, want %q", b, want)
	}
}

// TestAttributesOfUnseenWrites: while the kernel writes a file alone, its
// attributes are not to be remembered.
func TestAttributesOfUnseenWrites(t *testing.T) {
	f, k := newFS(t, Options{})
	out := create(t, f, "f", unix.O_RDWR|unix.O_TRUNC)
	size := func(n uint64) fuse.AttrOut {
		var a fuse.AttrOut
		in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: fuse.InHeader{NodeId: out.NodeId}, Valid: fuse.FATTR_SIZE, Size: n}}
		wantStatus(t, f.SetAttr(nil, &in, &a), fuse.OK)
		return a
	}
	if a := size(100_000); a.Timeout() != 0 {
		t.Errorf("open for writing: %v", a.Timeout())
	}
	_, st := f.Write(nil, &fuse.WriteIn{InHeader: fuse.InHeader{NodeId: out.NodeId}, Fh: out.Fh}, []byte("no hole"))
	wantStatus(t, st, fuse.OK)
	release(f, out.Fh)
	var a fuse.AttrOut
	get := fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: out.NodeId}}
	wantStatus(t, f.GetAttr(nil, &get, &a), fuse.OK)
	if a.Timeout() != remember || a.Size != 100_000 {
		t.Errorf("closed: %v, %d bytes", a.Timeout(), a.Size)
	}
	reader := open(t, f, out.NodeId, unix.O_RDONLY)
	if reader.OpenFlags&fuse.FOPEN_PASSTHROUGH == 0 {
		t.Fatal("a resident file should be passed through to readers")
	}
	open(t, f, out.NodeId, unix.O_RDWR)
	<-k.told
	if off, ok := k.inodes[out.NodeId]; !ok || off >= 0 {
		t.Errorf("a writer that joined readers: notices %v", k.inodes)
	}
}

// TestClosedBeforeTheAnswer: what was told of a file that was open is true of that moment
// only, also when it is closed, and mapped still, before the kernel hears of it.
func TestClosedBeforeTheAnswer(t *testing.T) {
	f, _ := newFS(t, Options{})
	defer f.tree.Close()
	out := create(t, f, "f", unix.O_RDWR|unix.O_TRUNC)
	h, _ := f.files.get(out.Fh)
	fd, _ := h.Passthrough()
	mapped, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR, 0)
	must(t, err)
	defer unix.Close(mapped)
	_, err = unix.Pwrite(mapped, make([]byte, 20_000), 0)
	must(t, err)
	a, err := f.tree.Attr(t.Context(), inoOf(out.NodeId))
	must(t, err)
	release(f, out.Fh)
	if d := f.attrPatience(a); d != 0 {
		t.Errorf("the kernel may remember for %v", d)
	}
}

// TestForcedUnmount: what nobody closed is closed.
func TestForcedUnmount(t *testing.T) {
	f, k := newFS(t, Options{})
	create(t, f, "a", unix.O_RDWR|unix.O_TRUNC)
	create(t, f, "b", unix.O_RDWR|unix.O_APPEND)
	f.OnUnmount()
	if len(k.backing) != 0 || len(f.files.takeAll()) != 0 {
		t.Error("files were left open")
	}
}

// TestCreateLosesRace: somebody else made the file between lookup and create.
func TestCreateLosesRace(t *testing.T) {
	f, _ := newFS(t, Options{})
	first := create(t, f, "f", unix.O_RDWR)
	second := create(t, f, "f", unix.O_RDWR)
	if first.NodeId != second.NodeId || first.Fh == second.Fh {
		t.Errorf("%+v and %+v", first, second)
	}
	in := fuse.CreateIn{InHeader: fuse.InHeader{NodeId: 1}, Flags: unix.O_RDWR | unix.O_EXCL, Mode: unix.S_IFREG | 0o644}
	wantStatus(t, f.Create(nil, &in, "f", new(fuse.CreateOut)), fuse.Status(unix.EEXIST))
	mk := fuse.MkdirIn{InHeader: fuse.InHeader{NodeId: 1}, Mode: 0o755}
	wantStatus(t, f.Mkdir(nil, &mk, "d", new(fuse.EntryOut)), fuse.OK)
	in.Flags = unix.O_RDWR
	wantStatus(t, f.Create(nil, &in, "d", new(fuse.CreateOut)), fuse.Status(unix.EEXIST))
}

// TestListingGoesOn: a listing in the smallest pieces has every name once.
func TestListingGoesOn(t *testing.T) {
	f, _ := newFS(t, Options{})
	want := []string{".", ".."}
	for i := range 20 {
		name := fmt.Sprintf("file-%d", i)
		release(f, create(t, f, name, unix.O_RDWR).Fh)
		want = append(want, name)
	}
	for _, plus := range []bool{false, true} {
		var got []string
		for after := uint64(0); ; {
			l := fuse.NewDirEntryList(make([]byte, 200), after)
			in := fuse.ReadIn{InHeader: fuse.InHeader{NodeId: 1}, Offset: after}
			names, last := listOnce(t, f, &in, l, plus)
			if len(names) == 0 {
				break
			}
			got, after = append(got, names...), last
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("plus %v: got %v", plus, got)
		}
	}
}

func listOnce(t *testing.T, f *FS, in *fuse.ReadIn, l *fuse.DirEntryList, plus bool) (names []string, last uint64) {
	t.Helper()
	var entries []fuse.DirEntry
	var err error
	if plus {
		wantStatus(t, f.ReadDirPlus(nil, in, l), fuse.OK)
		entries, _, err = fuse.ParseDirLookupEntries(l.Bytes())
	} else {
		wantStatus(t, f.ReadDir(nil, in, l), fuse.OK)
		entries, err = fuse.ParseDirEntries(l.Bytes())
	}
	must(t, err)
	for _, e := range entries {
		names, last = append(names, e.Name), e.Off
	}
	return names, last
}

func TestErrnos(t *testing.T) {
	for _, e := range errnos {
		if got := errnoOf(fmt.Errorf("context: %w", e.err)); got != e.errno {
			t.Errorf("%v: got %v, want %v", e.err, got, e.errno)
		}
	}
	for err, want := range map[error]unix.Errno{
		errors.New("unheard of"): unix.EIO,
		unix.EIO:                 unix.EIO,
		errors.Join(tree.ErrNotFound, tree.ErrCorrupt):      unix.EIO,
		fmt.Errorf("%w: %w", tree.ErrNoSpace, unix.ENOSPC):  unix.ENOSPC,
		fmt.Errorf("chunk 3: %w", context.DeadlineExceeded): unix.ETIMEDOUT,
	} {
		if got := errnoOf(err); got != want {
			t.Errorf("%v: got %v, want %v", err, got, want)
		}
	}
}

// TestFailuresAreLoggedWithinBounds: what nobody expects is logged, what the
// caller did is not, and neither fills the disk.
func TestFailuresAreLoggedWithinBounds(t *testing.T) {
	var log bytes.Buffer
	f, _ := newFS(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	wantStatus(t, f.status("stat", 1, tree.ErrNotFound), fuse.ENOENT)
	if log.Len() > 0 {
		t.Errorf("logged: %s", log.String())
	}
	for range 100_000 {
		wantStatus(t, f.status("read", 1, tree.ErrLost), fuse.EIO)
	}
	if n := strings.Count(log.String(), "\n"); n < 1 || n > 1000 || !strings.Contains(log.String(), "lost") {
		t.Errorf("%d lines", n)
	}
}

// TestCall: a request's context ends with its caller, and the loop hears when
// somebody is about to wait for it: once, as who asks again may come too late.
func TestCall(t *testing.T) {
	f, k := newFS(t, Options{})
	cancel := make(chan struct{})
	var ctx context.Context = f.call(cancel)
	if ctx.Err() != nil {
		t.Error("ended before it was cancelled")
	}
	if len(k.waits) != 0 {
		t.Error("nobody waits yet")
	}
	close(cancel)
	for range 2 {
		<-ctx.Done()
	}
	derived, stop := context.WithCancel(ctx)
	defer stop()
	<-derived.Done()
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("got %v", ctx.Err())
	}
	if len(k.waits) != 1 || k.waits[0] != cancel {
		t.Errorf("the loop heard of %v", k.waits)
	}
}

func TestUnknownHandle(t *testing.T) {
	f, _ := newFS(t, Options{})
	_, st := f.Read(nil, &fuse.ReadIn{Fh: 99}, nil)
	wantStatus(t, st, fuse.EBADF)
	_, st = f.Write(nil, &fuse.WriteIn{Fh: 99}, nil)
	wantStatus(t, st, fuse.EBADF)
	wantStatus(t, f.Fsync(nil, &fuse.FsyncIn{Fh: 99}), fuse.EBADF)
	release(f, 99)
}

func wantStatus(t *testing.T, got, want fuse.Status) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestSeekEndsWhenKilled: the kernel takes the notice that finds what was stored by
// mappings only when others have read what they wait for. Who is killed does not wait
// for that, and however often that happens, few notices are under way.
func TestSeekEndsWhenKilled(t *testing.T) {
	f, k := newFS(t, Options{})
	out := create(t, f, "f", unix.O_RDWR|unix.O_APPEND)
	seek := func(cancel chan struct{}) fuse.Status {
		in := fuse.LseekIn{InHeader: fuse.InHeader{NodeId: out.NodeId}, Fh: out.Fh, Whence: unix.SEEK_HOLE}
		return f.Lseek(cancel, &in, &fuse.LseekOut{})
	}
	wantStatus(t, seek(nil), fuse.Status(unix.ENXIO)) // nothing is there, and no notice needed
	_, status := f.Write(nil, &fuse.WriteIn{InHeader: fuse.InHeader{NodeId: out.NodeId}, Fh: out.Fh}, make([]byte, 100_000))
	wantStatus(t, status, fuse.OK)
	k.mu.Lock()
	k.busy = make(chan struct{})
	k.mu.Unlock()
	for i := range mostStoring + 1 {
		killed, ended := make(chan struct{}), make(chan fuse.Status, 1)
		go func() { ended <- seek(killed) }()
		if i < mostStoring {
			<-k.told
		}
		close(killed)
		wantStatus(t, <-ended, fuse.EINTR)
	}
	if n := len(k.told); n > 0 {
		t.Errorf("%d notices too many", n)
	}
	close(k.busy)
	wantStatus(t, seek(make(chan struct{})), fuse.OK)
	<-k.told
	release(f, out.Fh)
}

// TestSynchronousWrite: a write that asks to be durable by itself (RWF_DSYNC past the
// page cache) waits for a flush; another does not, nor does the kernel's own of what
// lay in the page cache.
func TestSynchronousWrite(t *testing.T) {
	f, k := newFS(t, Options{})
	out := create(t, f, "f", unix.O_RDWR|unix.O_CREAT|unix.O_DIRECT)
	for i, c := range []struct {
		flags, writeFlags uint32
		flushes           bool
	}{{0, 0, false}, {unix.O_DSYNC, 0, true}, {unix.O_SYNC, 0, true}, {unix.O_DSYNC, fuse.WRITE_CACHE, false}} {
		before := len(k.waits)
		n, status := f.Write(make(chan struct{}), &fuse.WriteIn{InHeader: fuse.InHeader{NodeId: out.NodeId}, Fh: out.Fh,
			Offset: uint64(i) * 4096, Size: 4096, Flags: c.flags, WriteFlags: c.writeFlags}, make([]byte, 4096))
		wantStatus(t, status, fuse.OK)
		if n != 4096 || len(k.waits) > before != c.flushes {
			t.Errorf("flags %#o, %#x: %d bytes, waited: %v", c.flags, c.writeFlags, n, len(k.waits) > before)
		}
	}
	release(f, out.Fh)
}

// Linux takes attributes that were told before such a change for true though they come
// after it: it is told that they are not.
func TestAttributesAreTakenBack(t *testing.T) {
	f, k := newFS(t, Options{})
	out := create(t, f, "f", unix.O_RDWR)
	head := fuse.InHeader{NodeId: out.NodeId}
	for name, change := range map[string]func() fuse.Status{
		"set": func() fuse.Status {
			return f.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: head}, "user.a", []byte("b"))
		},
		"allocate": func() fuse.Status {
			return f.Fallocate(nil, &fuse.FallocateIn{InHeader: head, Fh: out.Fh, Length: 4096})
		},
		"remove": func() fuse.Status {
			wantStatus(t, f.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: head}, "user.b", nil), fuse.OK)
			<-k.told
			return f.RemoveXAttr(nil, &head, "user.b")
		},
	} {
		t.Run(name, func(t *testing.T) {
			wantStatus(t, change(), fuse.OK)
			<-k.told
			if off, told := k.inodes[out.NodeId]; !told || off != -1 {
				t.Errorf("told: %v, from %d", told, off)
			}
		})
	}
	release(f, out.Fh)
}
