package loop

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// kernel stands for the other side: a socket takes the place of /dev/fuse.
type kernel struct {
	t    *testing.T
	fd   int
	last uint64
}

// answer is what came back for a request.
type answer struct {
	unique uint64
	errno  unix.Errno
	data   []byte
}

// message is a request: a structure that begins with a header, and what follows.
func message[T any](k *kernel, code uint32, in *T, rest ...string) []byte {
	tail := strings.Join(rest, "")
	h := (*fuse.InHeader)(unsafe.Pointer(in))
	k.last += 2
	h.Opcode, h.Unique, h.Length = code, k.last, uint32(unsafe.Sizeof(*in))+uint32(len(tail))
	return append(bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(in)), unsafe.Sizeof(*in))), tail...)
}

// send makes a request and returns its number.
func send[T any](k *kernel, code uint32, in *T, rest ...string) uint64 {
	k.t.Helper()
	k.write(message(k, code, in, rest...))
	return k.last
}

func (k *kernel) write(b []byte) {
	k.t.Helper()
	_, err := unix.Write(k.fd, b)
	must(k.t, err)
}

// interrupt says that nobody waits for the answer to a request.
func (k *kernel) interrupt(u uint64) {
	k.t.Helper()
	b := message(k, 36, &fuse.InterruptIn{Unique: u})
	at[fuse.InHeader](b).Unique = u | interrupted
	k.write(b)
}

// receive waits for the next answer.
func (k *kernel) receive() answer {
	k.t.Helper()
	b := make([]byte, 1<<17)
	n, err := unix.Read(k.fd, b)
	must(k.t, err)
	out := at[fuse.OutHeader](b)
	if n < headerSize || int(out.Length) != n {
		k.t.Fatalf("an answer of %d bytes says that it has %d", n, out.Length)
	}
	return answer{out.Unique, unix.Errno(-out.Status), b[headerSize:n]}
}

// ask makes a request and waits for its answer, which must be the next.
func ask[T any](k *kernel, code uint32, in *T, rest ...string) answer {
	k.t.Helper()
	u := send(k, code, in, rest...)
	a := k.receive()
	if a.unique != u {
		k.t.Fatalf("answer to %d, want one to %d", a.unique, u)
	}
	return a
}

// fake is a filesystem for the loop to ask.
type fake struct {
	fuse.RawFileSystem
	loop      *Loop
	mu        sync.Mutex // guards told
	told      []string
	began     chan string // receives what began to wait
	release   chan struct{}
	stay      chan struct{} // closed to end what does not give up
	unmounted atomic.Bool
	cancelled atomic.Int32
}

func (f *fake) say(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, what)
}

func (f *fake) heard() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.told, ",")
}

// lines takes a log from several goroutines.
type lines struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (f *fake) hold(what string, cancel <-chan struct{}) fuse.Status {
	f.began <- what
	select {
	case <-cancel:
		f.cancelled.Add(1)
		return fuse.EINTR
	case <-f.release:
		return fuse.OK
	}
}

func (f *fake) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	switch name {
	case "panic":
		panic("on purpose")
	case "says that it waits":
		f.loop.Waits(cancel)
		f.loop.Waits(cancel)
		return f.hold(name, cancel)
	case "waits":
		return f.hold(name, cancel)
	case "does not give up":
		f.loop.Waits(cancel)
		f.began <- name
		<-cancel
		f.cancelled.Add(1)
		f.began <- name
		<-f.stay
		return fuse.EINTR
	case "nothing":
		return fuse.ENOENT
	}
	out.NodeId = in.NodeId + uint64(len(name))
	return fuse.OK
}

func (f *fake) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return f.hold("setlkw", cancel)
}

func (f *fake) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Ino = in.NodeId
	return fuse.OK
}

func (f *fake) Forget(node, n uint64) {
	f.say("forget " + string(rune('0'+node)) + string(rune('0'+n)))
}

func (f *fake) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	f.say("rename " + from + " " + to + " " + string(rune('0'+in.Newdir)) + string(rune('0'+in.Flags)))
	return fuse.OK
}

func (f *fake) Symlink(_ <-chan struct{}, _ *fuse.InHeader, target, name string, _ *fuse.EntryOut) fuse.Status {
	f.say("symlink " + name + " to " + target)
	return fuse.OK
}

func (f *fake) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	f.say("setxattr " + name + "=" + string(value) + string(rune('0'+in.Flags)) + string(rune('0'+in.SetXAttrFlags)))
	return fuse.OK
}

func (f *fake) GetXAttr(_ <-chan struct{}, _ *fuse.InHeader, _ string, dest []byte) (uint32, fuse.Status) {
	const value = "value"
	if len(dest) < len(value) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

func (f *fake) ReadInto(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (int, fuse.Status) {
	for i := range buf {
		buf[i] = byte(in.Offset)
	}
	return len(buf) / 2, fuse.OK
}

func (f *fake) CopyFileRange64(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint64, fuse.Status) {
	return in.Len, fuse.OK
}

func (f *fake) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if int(in.Size) != len(data) {
		return 0, fuse.EINVAL
	}
	return in.Size, fuse.OK
}

func (f *fake) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	out.AddDirEntry(fuse.DirEntry{Name: "name", Ino: 7, Off: in.Offset + 1})
	return fuse.OK
}

func (f *fake) OnUnmount() { f.unmounted.Store(true) }

const everything = ^uint64(0)

// start is a loop that serves a fake filesystem until the test ends.
func start(t *testing.T, opt Options) (*kernel, *fake) {
	t.Helper()
	k, l, f := greeted(t, opt)
	ended := make(chan error, 1)
	go func() { ended <- l.Serve() }()
	t.Cleanup(func() {
		_ = unix.Close(k.fd)
		if err := <-ended; err != nil || !f.unmounted.Load() {
			t.Errorf("ended with %v, told the filesystem: %v", err, f.unmounted.Load())
		}
	})
	return k, f
}

func greeted(t *testing.T, opt Options) (*kernel, *Loop, *fake) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	k := &kernel{t: t, fd: pair[0]}
	f := &fake{RawFileSystem: fuse.NewDefaultRawFileSystem(), began: make(chan string, 100), release: make(chan struct{}), stay: make(chan struct{})}
	in := fuse.InitIn{Major: major, Minor: knownMinor, Flags: fuse.CAP_ASYNC_READ | fuse.CAP_SETXATTR_EXT, Flags2: 1}
	send(k, initRequest, &in)
	if opt.MaxIO == 0 {
		opt.MaxIO = 1 << 16
	}
	f.loop, err = New(pair[1], f, opt)
	must(t, err)
	return k, f.loop, f
}

func lookup(k *kernel, name string) uint64 {
	k.t.Helper()
	return send(k, 1, &fuse.InHeader{NodeId: 1}, name, "\x00")
}

// getAttr asks for something quick and wants the answer next.
func getAttr(k *kernel) {
	k.t.Helper()
	a := ask(k, 3, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: 5}})
	if a.errno != 0 || at[fuse.AttrOut](a.data).Ino != 5 {
		k.t.Errorf("got %+v", a)
	}
}

func TestGreeting(t *testing.T) {
	k, l, _ := greeted(t, Options{Capabilities: fuse.CAP_ASYNC_READ | fuse.CAP_ATOMIC_O_TRUNC | 1<<32, MaxIO: 1 << 20, MaxBackground: 8, MaxStackDepth: 2})
	a := k.receive()
	out := at[fuse.InitOut](a.data)
	want := uint64(fuse.CAP_ASYNC_READ | fuse.CAP_INIT_EXT | 1<<32) // what both sides know
	if a.errno != 0 || out.Flags64() != want || l.caps != want {
		t.Errorf("agreed on %x, want %x", out.Flags64(), want)
	}
	if out.MaxWrite != 1<<20 || out.MaxPages != 256 || out.MaxBackground != 8 || out.CongestionThreshold != 6 || out.MaxStackDepth != 2 {
		t.Errorf("got %+v", out)
	}
	l.device.close()
	if err := l.InvalidateInode(1, 0, 0); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("a notice after the end: %v", err)
	}
}

func TestOldKernel(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	must(t, err)
	k := &kernel{t: t, fd: pair[0]}
	send(k, initRequest, &fuse.InitIn{Major: major, Minor: minMinor - 1})
	if _, err := New(pair[1], fuse.NewDefaultRawFileSystem(), Options{MaxIO: 1 << 16}); err == nil {
		t.Error("a kernel that is too old was accepted")
	}
	must(t, unix.Close(k.fd))
}

// TestAnswers: requests of every shape reach the filesystem as what they are.
func TestAnswers(t *testing.T) {
	for _, long := range []bool{false, true} {
		var caps uint64
		flags := "0"
		if long {
			caps, flags = everything, "3"
		}
		k, f := start(t, Options{Capabilities: caps})
		k.receive()
		wantErrno(t, ask(k, 1, &fuse.InHeader{NodeId: 1}, "nothing", "\x00"), unix.ENOENT)
		a := ask(k, 1, &fuse.InHeader{NodeId: 1}, "four", "\x00")
		if at[fuse.EntryOut](a.data).NodeId != 5 {
			t.Errorf("lookup: %+v", a)
		}
		getAttr(k)
		in := fuse.RenameIn{Newdir: 7, Flags: 2}
		wantErrno(t, ask(k, 45, &in, "a\x00b\x00"), 0)
		old := struct {
			fuse.InHeader
			newdir uint64
		}{newdir: 7}
		wantErrno(t, ask(k, 12, &old, "c\x00d\x00"), 0)
		wantErrno(t, ask(k, 6, &fuse.InHeader{}, "link\x00target\x00"), 0)
		set := fuse.SetXAttrIn{Size: 5, Flags: 1, SetXAttrFlags: 3}
		if long {
			wantErrno(t, ask(k, 21, &set, "n\x00value"), 0)
		} else {
			short := struct {
				fuse.InHeader
				size, flags uint32
			}{size: 5, flags: 1}
			wantErrno(t, ask(k, 21, &short, "n\x00value"), 0)
		}
		send(k, 2, &fuse.ForgetIn{InHeader: fuse.InHeader{NodeId: 1}, Nlookup: 2})
		batch := struct {
			fuse.InHeader
			count, dummy uint32
			nodes        [2]forgotten
		}{count: 2, nodes: [2]forgotten{{3, 4}, {5, 6}}}
		send(k, 42, &batch)
		getAttr(k) // what needs no answer got none
		if a := ask(k, 22, &fuse.GetXAttrIn{}, "n\x00"); a.errno != 0 || at[fuse.GetXAttrOut](a.data).Size != 5 {
			t.Errorf("size of an attribute: %+v", a)
		}
		wantErrno(t, ask(k, 22, &fuse.GetXAttrIn{Size: 3}, "n\x00"), unix.ERANGE)
		if a := ask(k, 22, &fuse.GetXAttrIn{Size: 9}, "n\x00"); a.errno != 0 || string(a.data) != "value" {
			t.Errorf("an attribute: %+v", a)
		}
		if a := ask(k, 15, &fuse.ReadIn{Size: 8, Offset: 'x'}); string(a.data) != "xxxx" {
			t.Errorf("read: %+v", a)
		}
		if a := ask(k, 16, &fuse.WriteIn{Size: 3}, "abc"); at[fuse.WriteOut](a.data).Size != 3 {
			t.Errorf("write: %+v", a)
		}
		if a := ask(k, 53, &fuse.CopyFileRangeIn{Len: 5 << 32}); at[fuse.CopyFileRangeOut](a.data).BytesCopied != 5<<32 {
			t.Errorf("copy: %+v", a)
		}
		a = ask(k, 28, &fuse.ReadIn{Size: 500, Offset: 8})
		if list, err := fuse.ParseDirEntries(a.data); err != nil || len(list) != 1 || list[0].Name != "name" || list[0].Off != 9 {
			t.Errorf("readdir: %v, %v", list, err)
		}
		want := "rename a b 72,rename c d 70,symlink link to target,setxattr n=value1" + flags + ",forget 12,forget 34,forget 56"
		if got := f.heard(); got != want {
			t.Errorf("the filesystem was told\n%s, want\n%s", got, want)
		}
	}
}

func wantErrno(t *testing.T, a answer, want unix.Errno) {
	t.Helper()
	if a.errno != want || a.errno != 0 && len(a.data) > 0 {
		t.Errorf("got %+v, want %v", a, want)
	}
}

// TestBadRequests: what makes no sense is refused, and the loop goes on.
func TestBadRequests(t *testing.T) {
	var log lines
	k, _ := start(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	k.receive()
	wantErrno(t, ask(k, 1000, &fuse.InHeader{}), unix.ENOSYS)
	wantErrno(t, ask(k, 7, &fuse.InHeader{}), unix.ENOSYS)
	wantErrno(t, ask(k, 3, &fuse.InHeader{}), unix.EIO) // cut off
	wantErrno(t, ask(k, 15, &fuse.ReadIn{Size: 1 << 30}), unix.EIO)
	wantErrno(t, ask(k, 1, &fuse.InHeader{}, "panic\x00"), unix.EIO)
	getAttr(k)
	if s := log.String(); !strings.Contains(s, "on purpose") || !strings.Contains(s, "cut off") {
		t.Errorf("log: %s", s)
	}
}

// TestWaitingHoldsNobodyUp: others are answered while requests wait, whether
// the loop knows that they do, is told, or finds out, also if those before them
// were brief.
func TestWaitingHoldsNobodyUp(t *testing.T) {
	t.Run("mostly long", func(t *testing.T) { holdsNobodyUp(t, 0) })
	t.Run("mostly brief", func(t *testing.T) { holdsNobodyUp(t, mostBrief) })
}

func holdsNobodyUp(t *testing.T, score int32) {
	k, f := start(t, Options{})
	k.receive()
	f.loop.waits.of(1).Store(score)
	waits := map[uint64]bool{}
	for range 20 {
		for _, name := range []string{"says that it waits", "waits"} {
			waits[lookup(k, name)] = true
			<-f.began
			getAttr(k)
		}
		waits[send(k, 33, &fuse.LkIn{})] = true
		<-f.began
		getAttr(k)
	}
	close(f.release)
	for range len(waits) {
		a := k.receive()
		if a.errno != 0 || !waits[a.unique] {
			t.Errorf("got %+v", a)
		}
		delete(waits, a.unique)
	}
	getAttr(k)
}

// TestBriefWaits: a kind of request counts as brief when it mostly was, lately.
func TestBriefWaits(t *testing.T) {
	var s waits
	see := func(d time.Duration, times int, want bool) {
		t.Helper()
		for range times {
			s.saw(20, d)
		}
		if s.areBrief(20) != want {
			t.Errorf("after %d waits of %v, brief is %v", times, d, !want)
		}
	}
	see(brief/10, mostBrief/2-1, false)
	see(brief/10, 1, true)
	see(brief/10, 100, true)
	see(time.Hour, 1, true)
	see(time.Hour, mostBrief, false)
	if s.areBrief(21) {
		t.Error("another kind is brief, too")
	}
}

// TestBriefWaitKeepsReading: a worker goes on reading behind a brief wait, but
// not if others asked at the same time, or if the wait need not be brief.
func TestBriefWaitKeepsReading(t *testing.T) {
	_, l, _ := greeted(t, Options{})
	defer l.device.close()
	w, err := newWorker(l)
	must(t, err)
	defer w.free()
	for _, c := range []struct {
		what    string
		score   int32
		by      uint32
		waiting int
		reads   bool
	}{
		{"alone", mostBrief, 1, 0, true},
		{"of the same thread", mostBrief, 1, 1, true},
		{"with others", mostBrief, 2, 1, false},
		{"of another thread, alone", mostBrief, 3, 0, true},
		{"long", 0, 3, 0, false},
	} {
		l.readers.Store(2)
		w.reads.Store(true)
		l.waits.of(20).Store(c.score)
		in := at[header](w.request)
		in.Opcode, in.Pid = 20, c.by
		w.waiting = c.waiting
		w.came()
		w.wait()
		if w.reads.Load() != c.reads {
			t.Errorf("%s: reads: %v", c.what, !c.reads)
		}
		w.waited(20)
	}
}

// TestInterrupt: who waits for an answer can give up, and nobody else suffers.
func TestInterrupt(t *testing.T) {
	k, f := start(t, Options{})
	k.receive()
	for range 10 {
		other := lookup(k, "waits")
		<-f.began
		u := lookup(k, "says that it waits")
		<-f.began
		k.interrupt(u)
		if a := k.receive(); a.unique != u || a.errno != unix.EINTR {
			t.Fatalf("got %+v, want %d to be interrupted", a, u)
		}
		k.interrupt(u) // too late
		if a := k.receive(); a.unique != u|interrupted || a.errno != unix.EAGAIN {
			t.Fatalf("got %+v", a)
		}
		k.interrupt(other)
		if a := k.receive(); a.unique != other || a.errno != unix.EINTR {
			t.Fatalf("got %+v, want %d to be interrupted", a, other)
		}
	}
}

// TestEnd: when the connection ends, nothing waits any more.
func TestEnd(t *testing.T) {
	k, l, f := greeted(t, Options{})
	k.receive()
	ended := make(chan error, 1)
	go func() { ended <- l.Serve() }()
	for range 5 {
		lookup(k, "says that it waits")
		<-f.began
	}
	for range 2 { // the first is interrupted before the end, the other by it
		k.interrupt(lookup(k, "does not give up"))
		<-f.began
	}
	must(t, unix.Close(k.fd))
	for range 2 {
		<-f.began
	}
	close(f.stay)
	must(t, <-ended)
	if n := f.cancelled.Load(); n != 7 || !f.unmounted.Load() {
		t.Errorf("%d requests were ended, unmounted: %v", n, f.unmounted.Load())
	}
}

// TestManyAtOnce: each of many requests gets its one answer, whatever waits.
func TestManyAtOnce(t *testing.T) {
	k, f := start(t, Options{})
	k.receive()
	close(f.release)
	go func() {
		for range cap(f.began) * 1000 {
			<-f.began
		}
	}()
	const n = 3000
	var owed sync.Map
	slots := make(chan struct{}, 64)
	go func() {
		for range n {
			slots <- struct{}{}
			in := &fuse.InHeader{NodeId: 1}
			name := []string{"a", "waits", "nothing", "says that it waits", "a", "a"}[rand.IntN(6)]
			b := message(k, 1, in, name, "\x00")
			owed.Store(at[fuse.InHeader](b).Unique, true)
			k.write(b)
		}
	}()
	for range n {
		a := k.receive()
		if _, ok := owed.LoadAndDelete(a.unique); !ok {
			t.Fatalf("nobody asked for %+v", a)
		}
		<-slots
	}
	if r := f.loop.readers.Load(); r < 1 || r > f.loop.most {
		t.Errorf("%d readers", r)
	}
}

// TestNoAllocation: the loop itself needs no memory for a request.
func TestNoAllocation(t *testing.T) {
	k, _ := start(t, Options{})
	k.receive()
	buf := make([]byte, 1<<16)
	for what, b := range map[string][]byte{
		"getattr": message(k, 3, &fuse.GetAttrIn{}),
		"read":    message(k, 15, &fuse.ReadIn{Size: 4096}),
		"write":   message(k, 16, &fuse.WriteIn{Size: 1000}, strings.Repeat("x", 1000)),
	} {
		n := testing.AllocsPerRun(300, func() {
			_, _ = unix.Write(k.fd, b)
			_, _ = unix.Read(k.fd, buf)
		})
		if n >= 1 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestPatience: looks become rarer while nothing is stuck, down to a bound, and
// are frequent again once something was.
func TestPatience(t *testing.T) {
	p := nextPatience(mostPatience, true)
	for want := patience; want < mostPatience; want *= 2 {
		if p != want {
			t.Fatalf("looks again after %v, want %v", p, want)
		}
		p = nextPatience(p, false)
	}
	if again := nextPatience(p, false); p != mostPatience || again != mostPatience {
		t.Errorf("looks again after %v, then %v", p, again)
	}
}
