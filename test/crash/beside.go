package crash

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"skep/test/memdisk"
)

// beside lets something happen at one moment of an operation: before or after it
// writes, flushes or reads, while a commit goes on or content is fetched. What then
// waits for a lock that the operation holds goes on when it has that, and the
// operation at its next moment only when the other has ended or waits again. So
// the two come in an order that is the same every time. Nothing else of the process
// may be at work, and it must have one processor.
type beside struct {
	at  int    // number of the moment
	run func() // what happens there

	main    atomic.Value // names the operation's goroutine
	n       int          // moments so far
	where   string       // the moment at which run began
	started bool
	done    chan struct{} // closed when run has ended
}

// longest is how long two operations may take together.
const longest = time.Minute

// during does an operation, and the other thing at its moment. It reports whether
// the operation had that moment.
func (b *beside) during(op func()) (bool, error) {
	b.done = make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.main.Store(goroutine())
		op()
	}()
	deadline := time.After(longest)
	select {
	case <-ended:
	case <-deadline:
		return true, fmt.Errorf("waits for ever:\n%s", stacks())
	}
	if !b.started {
		return false, nil
	}
	select {
	case <-b.done:
	case <-deadline:
		return true, fmt.Errorf("waits for ever at %s:\n%s", b.where, stacks())
	}
	return true, nil
}

// event is for memdisk.Disk.Watch.
func (b *beside) event(e memdisk.Event, after bool) {
	when := "before "
	if after {
		when = "after "
		if e.Kind != memdisk.Read && e.Kind != memdisk.Flush && e.Kind != memdisk.FlushDir && e.Kind != memdisk.FlushAll {
			return // the next is the same moment
		}
	}
	if !e.Below("/state/index") {
		b.step(when, e)
	}
}

// step is a moment.
func (b *beside) step(when string, what any) {
	if goroutine() != b.main.Load() {
		return
	}
	if b.n++; b.n-1 == b.at {
		b.where, b.started = fmt.Sprint(when, what), true
		go func() {
			defer close(b.done)
			b.run()
		}()
	}
	if b.started {
		rest()
	}
}

// goroutine names the one that asks.
func goroutine() string {
	var buf [64]byte
	id, _, _ := strings.Cut(string(buf[:runtime.Stack(buf[:], false)]), " [")
	return id
}

func stacks() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}

// rest returns when no other goroutine can go on by itself.
func rest() {
	runtime.Gosched()
	for buf := make([]byte, 64<<10); ; runtime.Gosched() {
		n := runtime.Stack(buf, true)
		if n == len(buf) {
			buf = make([]byte, 2*n)
			continue
		}
		_, others, _ := bytes.Cut(buf[:n], []byte("\n\n"))
		if !bytes.Contains(others, []byte(" [runnable")) && !bytes.Contains(others, []byte(" [running")) {
			return
		}
	}
}
