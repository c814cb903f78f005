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

// beside lets things happen at moments of an operation, one after the other: before or
// after it writes, flushes or reads, while a commit goes on or content is fetched. What then
// waits for a lock that the operation holds goes on when it has that, and the
// operation at its next moment only when the other has ended or waits again. So
// the two come in an order that is the same every time. Nothing else of the process
// may be at work, and it must have one processor.
type beside struct {
	at  []int       // numbers of the moments, none before the one before it
	run func(i int) // what happens at each

	main  atomic.Value // names the operation's goroutine
	n     int          // moments so far
	where []string     // the moments at which something was to begin
	todo  chan int     // what is to be run
}

// longest is how long two operations may take together.
const longest = time.Minute

// during does an operation, and the other things at its moments. It tells how many of
// these the operation had.
func (b *beside) during(op func()) (int, error) {
	b.todo = make(chan int, len(b.at))
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := range b.todo {
			b.run(i)
		}
	}()
	go func() {
		defer close(ended)
		b.main.Store(goroutine())
		op()
	}()
	deadline := time.After(longest)
	select {
	case <-ended:
	case <-deadline:
		return len(b.where), fmt.Errorf("waits for ever:\n%s", stacks())
	}
	close(b.todo)
	select {
	case <-done:
	case <-deadline:
		return len(b.where), fmt.Errorf("waits for ever at %q:\n%s", b.where, stacks())
	}
	return len(b.where), nil
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
	for i := len(b.where); i < len(b.at) && b.at[i] == b.n; i++ {
		b.where = append(b.where, fmt.Sprint(when, what))
		b.todo <- i
	}
	b.n++
	if len(b.where) > 0 {
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
