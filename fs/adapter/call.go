package adapter

import (
	"context"
	"sync/atomic"
	"time"
)

// call is the context of one request: it ends when the kernel says that nobody waits for
// the answer any more. Whoever asks for its Done is about to wait, and the request loop
// hears of that, so that no other request waits as well. It hears of it once: a context
// that is derived from this one asks again from a goroutine of its own, maybe when the
// request was answered and the loop is at another one. Nobody must ask first by then.
type call struct {
	cancel <-chan struct{}
	fs     *FS
	told   atomic.Bool // the loop was
}

func (f *FS) call(cancel <-chan struct{}) *call { return &call{cancel: cancel, fs: f} }

// Deadline implements context.Context.
func (c *call) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (c *call) Done() <-chan struct{} {
	if !c.told.Swap(true) {
		c.fs.kernel.Waits(c.cancel)
	}
	return c.cancel
}

// Err implements context.Context.
func (c *call) Err() error {
	select {
	case <-c.cancel:
		return context.Canceled
	default:
		return nil
	}
}

// Value implements context.Context.
func (c *call) Value(any) any { return nil }
