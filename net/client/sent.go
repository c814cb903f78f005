package client

import (
	"context"
	"sync"
)

type sentKey struct{}

// OnSent returns a context within which a call calls fn when it is first sent: it waits
// for others from here, and for a connection, before.
func OnSent(ctx context.Context, fn func()) context.Context {
	return context.WithValue(ctx, sentKey{}, sync.OnceFunc(fn))
}

// unsent is ctx for the calls that are made to find a peer.
func unsent(ctx context.Context) context.Context { return context.WithValue(ctx, sentKey{}, nil) }

// Sent calls what OnSent was given. It is for those that make calls as a Client does.
func Sent(ctx context.Context) {
	if fn, ok := ctx.Value(sentKey{}).(func()); ok {
		fn()
	}
}
