package loop

import (
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestSpinning: it is tried ever more rarely while it brings nothing, never
// quite given up, and tried each time when it pays.
func TestSpinning(t *testing.T) {
	tried := func(s *spinning, sleeps int) (n int) {
		for range sleeps {
			if s.due(0) {
				n++
				s.vain()
			}
		}
		return n
	}
	var s spinning
	if n := tried(&s, 10_000); n < 10_000/(mostSkipped+1) || n > 10_000/(mostSkipped+1)+5 {
		t.Errorf("tried %d times in 10,000", n)
	}
	s.paid()
	if !s.due(0) {
		t.Error("not tried though it paid")
	}
	if n := tried(&spinning{never: true}, 100); n != 0 {
		t.Errorf("tried %d times where others must run", n)
	}
}

// reading is a worker that may read, by hand.
func reading(t *testing.T) (*kernel, *worker) {
	t.Helper()
	k, l, _ := greeted(t, Options{})
	k.receive()
	must(t, unix.SetNonblock(l.device.fd, true))
	w, err := newWorker(l)
	must(t, err)
	t.Cleanup(w.free)
	return k, w
}

// TestTrying: a worker that tries finds what is there, and ends when nothing is
// or when others run in its place.
func TestTrying(t *testing.T) {
	k, w := reading(t)
	l := w.l
	if n := w.try(); n != 0 || l.spin.failed.Load() != 1 && l.spin.crowd.until.Load() == 0 {
		t.Errorf("read %d bytes of nothing, failed %d times", n, l.spin.failed.Load())
	}
	send(k, 3, &fuse.GetAttrIn{})
	w.sleep() // there is something: it ends
	if n := w.try(); n == 0 {
		t.Error("the request was not found")
	}
	l.device.close()
	must(t, unix.Close(k.fd))
}

// TestCrowd: nothing is tried while more threads want to run than there are
// processors, be they counted or felt; and it is tried again when they are gone.
func TestCrowd(t *testing.T) {
	var s spinning
	running, looks := cores, 0
	s.crowd.running = func() int { looks++; return running }
	now := time.Second
	pass := func(d time.Duration) bool { now += d; return s.due(now) }
	for range 100 {
		if !pass(lookEvery / 10) {
			t.Fatal("not tried though there is room")
		}
	}
	if looks < 9 || looks > 11 {
		t.Errorf("looked %d times in 10 ms", looks)
	}
	running++
	tries := 0
	for pass(lookEvery) {
		tries++
	}
	if tries != crowdLooks-1 {
		t.Errorf("tried %d times in a crowd", tries)
	}
	for range 100 {
		if pass(crowdTime) {
			t.Fatal("tried though the crowd is still there")
		}
	}
	running--
	if pass(crowdTime/2) || !pass(crowdTime) {
		t.Error("not tried when the crowd had gone, or too early")
	}
	s.crowd.felt(now)
	if pass(feltTime/2) || !pass(feltTime) {
		t.Error("what was felt does not count, or for ever")
	}
}

func TestRunning(t *testing.T) {
	for text, want := range map[string]int{"": 0, "nonsense": 0, "1/2": 1, "0.10 12.20 0.30 14/567 89\n": 14, "1 2 3 x/4": 0} {
		if n := runningOf([]byte(text)); n != want {
			t.Errorf("%q: %d, want %d", text, n, want)
		}
	}
	running, end := openRunning()
	defer end()
	if n := running(); n < 1 {
		t.Errorf("%d threads run, and one asks", n)
	}
}

// TestStarvation: on a machine that is busy each of many callers is answered
// again and again, those that wait beside those that do not.
func TestStarvation(t *testing.T) {
	k, f := start(t, Options{})
	k.receive()
	var busy sync.WaitGroup
	defer busy.Wait()
	stop := make(chan struct{})
	defer close(stop)
	for range 2 * runtime.GOMAXPROCS(0) {
		busy.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					_ = strconv.Itoa(n)
				}
			}
		})
	}
	go func() {
		for range 8 {
			<-f.began
		}
	}()
	for range 8 { // these wait until the end
		lookup(k, "waits")
	}
	const callers, times = 16, 30
	asked := map[uint64]int{} // by which caller
	again := func(caller int) { asked[send(k, 3, &fuse.GetAttrIn{})] = caller }
	answered := make([]int, callers)
	for i := range callers {
		again(i)
	}
	for slices.Min(answered) < times { // nobody stops before the last has had enough
		a := k.receive()
		caller, ok := asked[a.unique]
		if !ok || a.errno != 0 {
			t.Fatalf("nobody asked for %+v", a)
		}
		delete(asked, a.unique)
		answered[caller]++
		again(caller)
	}
	for range callers {
		k.receive()
	}
	close(f.release)
	for range 8 {
		if a := k.receive(); a.errno != 0 {
			t.Errorf("got %+v", a)
		}
	}
}
