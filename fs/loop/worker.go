package loop

import (
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// backlog is how many requests in a row must have been waiting already before
// one more worker reads.
const backlog = 4

// worker reads and handles requests, one at a time.
type worker struct {
	l       *Loop
	memory  []byte // what request and answer lie in
	request []byte // takes a request
	answer  []byte // takes an answer
	wake    chan struct{}
	waiting int    // requests in a row that were waiting already
	by      uint32 // the thread that made the last request
	alone   bool   // … and nobody else was waiting then
	place   place

	reads  atomic.Bool   // w is one of the readers
	busy   atomic.Uint64 // the number of the request in work, or 0; odd: it was interrupted
	caller atomic.Uint32 // the thread that made the request in work, or 0
	began  atomic.Uint64 // how many requests were begun
	since  atomic.Int64  // when the request began to wait, in nanoseconds, or 0

	cancel chan struct{} // closed when the request is interrupted; l.mu guards replacing it
	seen   uint64        // began, as of the last look; l.mu guards it
}

func newWorker(l *Loop) (*worker, error) {
	w := &worker{l: l, wake: make(chan struct{}, 1), cancel: make(chan struct{})}
	return w, w.allocate(l.opt.MaxIO)
}

// run reads and handles requests until the worker is not needed.
func (w *worker) run() {
	defer w.l.workers.Done()
	defer w.free()
	for {
		for w.reads.Load() {
			if n := w.next(); n > 0 {
				w.handle(n)
			}
		}
		if !w.l.rest(w) {
			return
		}
	}
}

// next reads a request. With 0 there is none, and the worker may be needed no
// more as a reader.
func (w *worker) next() int {
	l := w.l
	if w.place.near && l.readers.Load() == 1 {
		return w.nextNear()
	}
	l.device.block(false)
	n, errno := l.device.read(w.request)
	if errno == 0 {
		w.found()
		return n
	}
	w.waiting = 0
	if !w.mayRetry(errno) || w.retire() {
		return 0
	}
	if l.spin.due(l.now()) {
		if n := w.try(); n > 0 {
			return n
		}
	}
	w.sleep()
	return 0
}

// found takes note of a request that was read. One of the same thread was not
// waiting for long: it makes one after the other. Nobody waits for one of no
// thread.
func (w *worker) found() {
	switch at[header](w.request).Pid {
	case 0:
		return
	case w.by:
		w.waiting = 0
		return
	}
	if w.waiting++; w.waiting >= backlog && w.l.readers.Load() < w.l.most {
		w.waiting = 0
		w.l.join()
	}
}

// atOnce is how long a read takes at most that needs not wait.
const atOnce = 3 * time.Microsecond

// nextNear waits for a request and reads it, as the only reader, near its caller:
// that one runs when this worker sleeps.
func (w *worker) nextNear() int {
	l := w.l
	l.device.block(true)
	yield()
	start := l.now()
	n, errno := l.device.read(w.request)
	if errno != 0 {
		w.mayRetry(errno)
		return 0
	}
	if l.now()-start > atOnce {
		w.waiting = -1 // it came to somebody who waited for it
	}
	w.found()
	return n
}

// try reads again and again for a moment. It pays while requests come one after
// the other.
func (w *worker) try() int {
	l := w.l
	start := l.now()
	for last := start; last-start < spinTime; {
		n, errno := l.device.read(w.request)
		if errno == 0 {
			l.spin.paid()
			return n
		}
		if !w.mayRetry(errno) {
			return 0
		}
		now := l.now()
		if now-last > longPause {
			l.spin.crowd.felt(now)
			return 0
		}
		last = now
	}
	l.spin.vain()
	return 0
}

// sleep waits until a request comes.
func (w *worker) sleep() {
	start := w.l.now()
	w.l.device.wait()
	w.waiting = -1 // the next one comes to somebody who waited for it
	if w.l.now()-start < spinTime {
		w.l.spin.paid()
	}
}

// mayRetry reports whether reading may go on after errno; the end of the
// connection ends all workers.
func (w *worker) mayRetry(errno unix.Errno) bool {
	switch errno {
	case unix.EAGAIN, unix.EINTR, unix.ENOENT: // nothing there, or just interrupted
		return true
	case unix.ENODEV, unix.ECONNABORTED: // unmounted, or ended by force
	default:
		w.l.log.Error("requests of the kernel cannot be read", "err", errno)
	}
	w.l.end()
	w.reads.Store(false)
	return false
}

// retire makes the worker no reader if there are others. False says that it
// must go on.
func (w *worker) retire() bool {
	n := w.l.readers.Load()
	if n <= 1 {
		return false
	}
	if !w.reads.CompareAndSwap(true, false) {
		return true
	}
	if w.l.readers.CompareAndSwap(n, n-1) {
		return true
	}
	w.reads.Store(true)
	return false
}

// leave makes the worker no reader, so that its request may wait; if it was the
// last, another takes its place.
func (w *worker) leave() {
	if !w.reads.CompareAndSwap(true, false) || w.l.readers.Add(-1) > 0 {
		return
	}
	if err := w.l.enlist(); err != nil { // out of memory: the others must wait
		w.l.log.Error("no further request can be handled meanwhile", "err", err)
		w.l.readers.Add(1)
		w.reads.Store(true)
	}
}

// join has one more worker read, because requests are waiting.
func (l *Loop) join() {
	if err := l.enlist(); err != nil && !errors.Is(err, unix.ENOMEM) {
		l.log.Error("requests are handled by fewer workers", "err", err)
	}
}

// begin says that the worker handles a request. One to interrupt another bears
// the other's number, and cannot be interrupted itself.
func (w *worker) begin(unique uint64, thread uint32) {
	if unique&interrupted != 0 {
		return
	}
	w.began.Add(1)
	w.caller.Store(thread)
	w.busy.Store(unique)
	w.l.watched()
	if w.l.over.Load() {
		w.interrupt(unique)
	}
}

// done says that the request was handled: whoever interrupts it comes too late.
func (w *worker) done(unique uint64) {
	if unique&interrupted != 0 || w.busy.CompareAndSwap(unique, 0) {
		return
	}
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	w.cancel = make(chan struct{})
	w.busy.Store(0)
}

// interrupted marks the number of a request that was interrupted, as the kernel
// does in its request to do so; its own numbers are even.
const interrupted = 1

// interrupt closes the request's channel if the worker handles it; l.mu is held
// or the worker itself calls it.
func (w *worker) interrupt(unique uint64) {
	if unique != 0 && w.busy.CompareAndSwap(unique, unique|interrupted) {
		close(w.cancel)
	}
}
