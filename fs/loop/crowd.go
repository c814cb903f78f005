package loop

import (
	"bytes"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// lookEvery is how often it is looked who else wants to run, at most.
	lookEvery = time.Millisecond
	// crowdLooks is how many looks in a row find too many before they count:
	// threads that run for a moment are everywhere.
	crowdLooks = 3
	// crowdTime is how long a crowd is taken to last that was counted, and feltTime
	// one that was felt, which may be Go's collector and soon over.
	crowdTime = 50 * time.Millisecond
	feltTime  = 10 * time.Millisecond
	// longPause is more than a processor needs to try once to read: somebody else
	// had it meanwhile, a thread of this machine or one beside it.
	longPause = spinTime / 2
)

// crowd tells when there are more threads that want to run than processors. A
// reader that tries to read is in their way then, and they come between it and
// the program that it waits for; one that sleeps is let in at once when it is
// woken, as it has used little of its share.
type crowd struct {
	running func() int   // how many threads run or wait to, on the whole machine; 0: nobody knows
	looked  atomic.Int64 // when it was looked last
	found   atomic.Int32 // looks in a row that found too many
	until   atomic.Int64 // up to when there is a crowd
}

// there reports whether there is a crowd.
func (c *crowd) there(now time.Duration) bool {
	if now < time.Duration(c.until.Load()) {
		return true
	}
	if c.running == nil || now < time.Duration(c.looked.Load())+lookEvery {
		return false
	}
	c.looked.Store(int64(now))
	if c.running() <= cores {
		c.found.Store(0)
		return false
	}
	if c.found.Add(1) < crowdLooks {
		return false
	}
	c.found.Store(crowdLooks - 1) // one more look suffices next time
	c.until.Store(int64(now + crowdTime))
	return true
}

// felt says that somebody else ran where a reader wanted to.
func (c *crowd) felt(now time.Duration) { c.until.Store(int64(now + feltTime)) }

// openRunning opens what tells how many threads run or wait to; where there is no
// such thing, all that is told is 0.
func openRunning() (running func() int, end func()) {
	f, err := os.Open("/proc/loadavg")
	if err != nil {
		return func() int { return 0 }, func() {}
	}
	return func() int {
		var b [128]byte // the file is shorter
		n, _ := f.ReadAt(b[:], 0)
		return runningOf(b[:n])
	}, func() { _ = f.Close() }
}

// runningOf reads the first number of the fourth word, as in "0.1 0.2 0.3 4/567 89".
func runningOf(b []byte) int {
	head, _, _ := bytes.Cut(b, []byte{'/'})
	n, err := strconv.Atoi(string(head[bytes.LastIndexByte(head, ' ')+1:]))
	if err != nil {
		return 0
	}
	return n
}
