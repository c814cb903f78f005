package loop

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Options say how to speak with the kernel.
type Options struct {
	// Capabilities are the FUSE_INIT flags that are asked for; those that the
	// kernel does not know are left out.
	Capabilities uint64
	// MaxIO is the largest read or write, in bytes.
	MaxIO int
	// MaxBackground is how many requests that nobody waits for (such as reading
	// ahead) the kernel may have under way.
	MaxBackground int
	// MaxStackDepth is how many stacked filesystems may lie below a file that is
	// passed through.
	MaxStackDepth int
	// Log takes faults; nil discards them.
	Log *slog.Logger
	// Trace logs every request and its answer, at debug level.
	Trace bool
}

// Loop serves one mount, once.
type Loop struct {
	fs     fuse.RawFileSystem
	direct readerInto // fs, if it can; else nil
	copier copier64   // the same
	opt    Options
	log    *slog.Logger
	caps   uint64 // what was agreed on with the kernel

	device device

	readers atomic.Int32 // workers that read
	most    int32        // how many readers there may be
	spin    spinning
	waits   waits
	// processors is nil where workers do not follow their callers.
	processors *processors
	began      time.Time

	watching atomic.Bool // the timer runs
	watcher  *time.Timer
	patience atomic.Int64 // until the next look; a time.Duration

	over    atomic.Bool // no request comes any more
	mu      sync.Mutex  // guards all, resting and setting over
	all     map[*worker]struct{}
	resting []*worker
	workers sync.WaitGroup
}

// readerInto is what a filesystem may have in place of Read: it reads straight
// into the answer.
type readerInto interface {
	ReadInto(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (n int, st fuse.Status)
}

// copier64 is what a filesystem may have beside CopyFileRange: it tells of 4 GiB
// and more.
type copier64 interface {
	CopyFileRange64(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (copied uint64, st fuse.Status)
}

// New takes over fd, a descriptor of /dev/fuse that is mounted already, and
// agrees with the kernel on how to speak. The filesystem's Init is not called.
// On failure fd is closed.
func New(fd int, fs fuse.RawFileSystem, opt Options) (*Loop, error) {
	l := &Loop{fs: fs, opt: opt, log: opt.Log, most: mostReaders(), began: time.Now(), all: map[*worker]struct{}{}}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.direct, _ = fs.(readerInto)
	l.copier, _ = fs.(copier64)
	l.device.fd = fd
	// With one processor, or one thread of Go, others must run meanwhile.
	l.spin.never = cores < 2 || runtime.GOMAXPROCS(0) == 1
	l.patience.Store(int64(patience))
	l.watcher = time.AfterFunc(time.Hour, l.watch)
	l.watcher.Stop()
	if err := l.greet(); err != nil {
		l.device.close()
		return nil, fmt.Errorf("greeting the kernel: %w", err)
	}
	return l, nil
}

// mostReaders is how many workers read at most. One that spins needs a core
// beside that of the program that it waits for.
func mostReaders() int32 { return int32(min(max(runtime.GOMAXPROCS(0), 2), 8)) }

// Serve answers requests until the mount is gone. It calls OnUnmount after the
// last one. It is called once.
func (l *Loop) Serve() error {
	l.processors = newProcessors()
	defer l.processors.close()
	return l.serve()
}

// serve is Serve; workers follow their callers if l.processors is there.
func (l *Loop) serve() error {
	if err := unix.SetNonblock(l.device.fd, true); err != nil {
		return err
	}
	running, closeRunning := openRunning()
	defer closeRunning()
	l.spin.crowd.running = running
	if err := l.enlist(); err != nil {
		return err
	}
	l.workers.Wait()
	l.watcher.Stop()
	l.fs.OnUnmount()
	l.device.close()
	return nil
}

// Connected reports whether the filesystem is there still: mounted, or held by who has
// files of it open. It may be called at any time.
func (l *Loop) Connected() bool { return l.device.connected() }

// now is the time since the loop began.
func (l *Loop) now() time.Duration { return time.Since(l.began) }

// enlist has one more worker read.
func (l *Loop) enlist() error {
	l.readers.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over.Load() {
		return nil
	}
	if n := len(l.resting); n > 0 {
		w := l.resting[n-1]
		l.resting = l.resting[:n-1]
		w.reads.Store(true)
		w.wake <- struct{}{}
		return nil
	}
	w, err := newWorker(l)
	if err != nil {
		l.readers.Add(-1)
		return err
	}
	w.reads.Store(true)
	l.all[w] = struct{}{}
	l.workers.Add(1)
	go w.run()
	return nil
}

// mayRest is how many workers are kept for when they are needed again.
const mayRest = 8

// rest waits until w is to read again; false says that it is not needed.
func (l *Loop) rest(w *worker) bool {
	l.mu.Lock()
	if l.over.Load() || len(l.resting) >= mayRest {
		delete(l.all, w)
		l.mu.Unlock()
		return false
	}
	l.resting = append(l.resting, w)
	l.mu.Unlock()
	_, ok := <-w.wake
	return ok
}

// end ends all workers: no request comes any more, and nobody waits for the
// answers to those that are being handled.
func (l *Loop) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over.Load() {
		return
	}
	l.over.Store(true)
	for _, w := range l.resting {
		close(w.wake)
	}
	l.resting = nil
	for w := range l.all {
		w.interrupt(w.busy.Load() &^ interrupted)
	}
}

// Waits says that the request with this channel is about to wait, so that
// others are not held up by it. Any request's handling may call it, any number
// of times.
func (l *Loop) Waits(cancel <-chan struct{}) {
	l.mu.Lock()
	var of *worker
	for w := range l.all {
		if w.cancel == cancel {
			of = w
		}
	}
	l.mu.Unlock()
	if of != nil {
		of.wait()
	}
}

// interrupt says that the caller of the request with this number has a signal; false
// says that nobody handles the request.
func (l *Loop) interrupt(unique uint64) bool {
	thread, handled := l.caller(unique)
	if handled {
		l.workers.Go(func() { l.endFor(unique, thread) })
	}
	return handled
}

// caller is the thread whose request has this number; false says that nobody handles it.
func (l *Loop) caller(unique uint64) (thread uint32, handled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.all {
		if w.busy.Load()&^interrupted == unique {
			return w.caller.Load(), true
		}
	}
	return 0, false
}

// cancel closes the channel of the request with this number, if it is handled.
func (l *Loop) cancel(unique uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.all {
		w.interrupt(unique)
	}
}

const (
	// patience is how long one request may keep its reader from the others, where
	// that has happened lately.
	patience = time.Millisecond
	// mostPatience is how long where it has not: each look wakes a thread, which
	// is felt by whoever makes many quick requests.
	mostPatience = 8 * patience
)

// watch takes from among the readers those that are stuck in a request. It runs
// every so often as long as it finds one in a request, and is set going by the
// next one.
func (l *Loop) watch() {
	active, stuck := l.look()
	l.patience.Store(int64(nextPatience(time.Duration(l.patience.Load()), stuck)))
	if active {
		l.watcher.Reset(time.Duration(l.patience.Load()))
		return
	}
	l.watching.Store(false)
	if l.anyBusy() { // it began after the look and saw that somebody watches
		l.watched()
	}
}

// watched makes sure that somebody watches.
func (l *Loop) watched() {
	if !l.watching.Load() && l.watching.CompareAndSwap(false, true) {
		l.watcher.Reset(time.Duration(l.patience.Load()))
	}
}

// nextPatience is when to look again after a look that found readers stuck, or
// none.
func nextPatience(last time.Duration, stuck bool) time.Duration {
	if stuck {
		return patience
	}
	return min(max(2*last, patience), mostPatience)
}

// look has readers that are in the same request as at the last look leave. It
// reports whether any reader is in a request, and whether any was stuck.
func (l *Loop) look() (active, anyStuck bool) {
	l.mu.Lock()
	var stuck []*worker
	for w := range l.all {
		if w.busy.Load() == 0 || !w.reads.Load() {
			continue
		}
		active = true
		n := w.began.Load()
		if n == w.seen {
			stuck = append(stuck, w)
		}
		w.seen = n
	}
	l.mu.Unlock()
	for _, w := range stuck {
		w.leave()
	}
	return active, len(stuck) > 0
}

func (l *Loop) anyBusy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.all {
		if w.busy.Load() != 0 && w.reads.Load() {
			return true
		}
	}
	return false
}
