package loop

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestFollowing: a worker moves to its caller, looks rarely while that lasts, and
// gives up for long where it does not.
func TestFollowing(t *testing.T) {
	var p place
	looks := func(requests int, caller, here int, follows bool) (n, moves int) {
		for range requests {
			if !p.due(1, 0) {
				continue
			}
			n++
			if p.saw(caller, here) {
				moves++
				if follows {
					here = caller
				}
			}
		}
		return n, moves
	}
	if n, moves := looks(10*nearEach, 1, 0, true); moves != 1 || n < 10 || n > 12 || !p.near {
		t.Errorf("looked %d times, moved %d times, near: %v", n, moves, p.near)
	}
	if n, moves := looks(20*farEach, 0, 1, false); moves != mostLost-1 || n != mostLost || p.near {
		t.Errorf("where it does not last, looked %d times, moved %d times, near: %v", n, moves, p.near)
	}
	if n, moves := looks(rarely, 0, 1, false); n != 2 || moves != 1 {
		t.Errorf("later, looked %d times, moved %d times", n, moves)
	}
	if looks(rarely, 1, 1, false); !p.near || p.lost != 0 {
		t.Errorf("not near where both are: %+v", p)
	}
	if n, moves := looks(rarely, -1, 1, false); n > mostLost+1 || moves != 0 || p.near {
		t.Errorf("of who is not known, looked %d times, moved %d times, near: %v", n, moves, p.near)
	}
}

// TestNewcomer: a thread that makes many requests is looked for soon, once; those
// that take turns are not, nor is anybody where it was given up.
func TestNewcomer(t *testing.T) {
	looks := func(p *place, by ...uint32) (n int) {
		for _, thread := range by {
			if p.due(thread, 0) {
				n++
				p.saw(1, 1)
			}
		}
		return n
	}
	p := place{near: true, left: nearEach, seen: 1}
	var turns []uint32
	for i := range uint32(nearEach / 2) {
		turns = append(turns, 2+i%2)
	}
	if n := looks(&p, turns...); n != 0 {
		t.Errorf("looked %d times for threads that take turns", n)
	}
	if n := looks(&p, slices.Repeat([]uint32{7}, newcomer)...); n != 1 || p.seen != 7 {
		t.Errorf("looked %d times for one that came new, last for %d", n, p.seen)
	}
	if n := looks(&p, slices.Repeat([]uint32{2, 7, 7, 7}, newcomer)...); n != 0 {
		t.Errorf("looked %d times for one that is known", n)
	}
	p.giveUp()
	if n := looks(&p, slices.Repeat([]uint32{8}, rarely-1)...); n != 0 {
		t.Errorf("looked %d times though it was given up", n)
	}
}

// TestStream: a stream of large requests ends being near, single ones do not.
func TestStream(t *testing.T) {
	p := place{near: true, left: nearEach}
	for range nearEach / 2 {
		for range stream - 1 {
			if p.due(1, large) {
				t.Fatal("a large request counted")
			}
		}
		p.due(1, large-1)
	}
	if !p.near {
		t.Error("single large requests ended being near")
	}
	for range stream {
		p.due(1, large)
	}
	if p.near {
		t.Error("near in a stream of large requests")
	}
}

func TestProcessorOf(t *testing.T) {
	const line = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 1 37\n"
	for text, want := range map[string]int{line: 1, "": -1, "12 (a) S 1 2": -1, "1 (a) S" + string(make([]byte, 100)): -1} {
		if n := processorOf([]byte(text)); n != want {
			t.Errorf("%q: %d, want %d", text, n, want)
		}
	}
}

// TestMoving: a thread moves to each processor, is found there, and is not bound
// to it afterwards.
func TestMoving(t *testing.T) {
	p := newProcessors()
	if p == nil {
		t.Skip("there is one processor only")
	}
	defer p.close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for cpu := range 1000 {
		if !p.all.IsSet(cpu) {
			continue
		}
		arrived := false
		for range 1000 { // others may drive it away at once
			if !p.move(cpu) {
				t.Fatalf("cannot move to processor %d", cpu)
			}
			if here() == cpu && p.of(uint32(unix.Gettid())) == cpu {
				arrived = true
				break
			}
		}
		if !arrived {
			t.Errorf("never came to processor %d", cpu)
		}
	}
	var now unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &now))
	if now != p.all {
		t.Error("bound to one processor")
	}
	if n := p.of(1 << 30); n >= 0 {
		t.Errorf("found a thread that is not there on processor %d", n)
	}
	if p.move(1023) {
		t.Error("moved where there is nothing")
	}
}

// TestNearReading: a worker that is near its caller waits in read(2), and the
// descriptor is as before for those that try.
func TestNearReading(t *testing.T) {
	k, w := reading(t)
	l := w.l
	l.readers.Store(1)
	w.reads.Store(true)
	w.place.near = true
	var asked sync.WaitGroup
	asked.Go(func() {
		runtime.Gosched()
		send(k, 3, &fuse.GetAttrIn{})
	})
	if n := w.next(); n == 0 || !l.device.blocks.Load() {
		t.Errorf("read %d bytes, waits in reading: %v", n, l.device.blocks.Load())
	}
	asked.Wait()
	w.place.near = false
	l.spin.never = true
	send(k, 3, &fuse.GetAttrIn{})
	if n := w.next(); n == 0 || l.device.blocks.Load() {
		t.Errorf("read %d bytes, waits in reading: %v", n, l.device.blocks.Load())
	}
	if _, errno := l.device.read(w.request); errno != unix.EAGAIN {
		t.Errorf("reading nothing: %v", errno)
	}
	w.place.near = true
	must(t, unix.Close(k.fd))
	if n := w.next(); n != 0 || w.reads.Load() {
		t.Errorf("after the end, read %d bytes; goes on: %v", n, w.reads.Load())
	}
	l.device.close()
}

// TestLookThatWaits: a look at a process that shows nothing, for which a pipe stands
// that nobody writes to, keeps only those waiting that asked; and there is none for
// what a process may be replaced by another program before it is answered.
func TestLookThatWaits(t *testing.T) {
	k, l, f := greeted(t, Options{})
	k.receive()
	dir := t.TempDir()
	stat := filepath.Join(dir, "7", "stat")
	must(t, os.Mkdir(filepath.Dir(stat), 0o700))
	must(t, unix.Mkfifo(stat, 0o600))
	proc, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	l.processors = &processors{proc: proc}
	defer l.processors.close()
	var served sync.WaitGroup
	served.Go(func() {
		if err := l.serve(); err != nil {
			t.Error(err)
		}
	})
	tooLong := time.AfterFunc(time.Minute, func() {
		t.Error("others wait for the look")
		_ = os.WriteFile(stat, nil, 0)
	})
	defer tooLong.Stop()
	seven := fuse.InHeader{Caller: fuse.Caller{Pid: 7}}
	ask(k, 25, &fuse.FlushIn{InHeader: seven})
	ask(k, readRequest, &fuse.ReadIn{InHeader: seven, Flags: unix.O_DIRECT})
	ask(k, writeRequest, &fuse.WriteIn{InHeader: seven, Flags: unix.O_DIRECT})
	ask(k, readRequest, &fuse.ReadIn{InHeader: seven, ReadFlags: ofOwner})
	ask(k, writeRequest, &fuse.WriteIn{InHeader: seven, WriteFlags: ofOwner})
	waits := send(k, 3, &fuse.GetAttrIn{InHeader: seven})
	for range 3 {
		getAttr(k) // somebody else
	}
	w, err := os.OpenFile(stat, os.O_WRONLY, 0)
	must(t, err)
	must(t, w.Close())
	if a := k.receive(); a.unique != waits || a.errno != 0 {
		t.Errorf("got %+v", a)
	}
	must(t, unix.Close(k.fd))
	served.Wait()
	if !f.unmounted.Load() {
		t.Error("not ended")
	}
}

// TestFollowsTheThread: the worker looks for the thread that asks, and at no
// other.
func TestFollowsTheThread(t *testing.T) {
	_, l, _ := greeted(t, Options{})
	defer l.device.close()
	if l.processors = newProcessors(); l.processors == nil {
		t.Skip("there is one processor only")
	}
	defer l.processors.close()
	w, err := newWorker(l)
	must(t, err)
	defer w.free()
	in := at[header](w.request)
	w.follow(in, headerSize)
	if w.place != (place{}) {
		t.Errorf("followed nobody: %+v", w.place)
	}
	in.Pid = uint32(os.Getpid())
	w.follow(in, headerSize)
	if !w.place.near {
		t.Errorf("did not follow: %+v", w.place)
	}
	in.Pid = 1 << 30
	w.place.left = 0
	w.follow(in, headerSize)
	if w.place.near || w.place.lost != 1 {
		t.Errorf("followed a thread that is not there: %+v", w.place)
	}
}
