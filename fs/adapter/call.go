package adapter

import (
	"context"
	"time"
)

// call is the context of one request: it ends when the kernel says that nobody
// waits for the answer any more. Whoever asks for its Done is about to wait, and
// the request loop hears of that, so that no other request waits as well. It
// must not be used after the request was answered.
type call struct {
	cancel <-chan struct{}
	fs     *FS
}

func (f *FS) call(cancel <-chan struct{}) call { return call{cancel, f} }

// Deadline implements context.Context.
func (c call) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (c call) Done() <-chan struct{} {
	c.fs.kernel.Waits(c.cancel)
	return c.cancel
}

// Err implements context.Context.
func (c call) Err() error {
	select {
	case <-c.cancel:
		return context.Canceled
	default:
		return nil
	}
}

// Value implements context.Context.
func (c call) Value(any) any { return nil }
