package adapter

import (
	"context"
	"time"
)

// call is the context of one request: it ends when the kernel says that nobody
// waits for the answer any more. Being a single channel, it costs no memory of
// its own. It must not be used after the request was answered.
type call struct{ cancel <-chan struct{} }

// Deadline implements context.Context.
func (c call) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (c call) Done() <-chan struct{} { return c.cancel }

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
