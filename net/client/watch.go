package client

import (
	"context"
	"io"
)

type watchKey struct{}

// Watched returns a context for calls that tells fn of the bytes of each answer
// as they arrive, so that the caller can tell a slow peer from a silent one. fn
// is called from the goroutines that read, and must not block. Those who watch
// ctx already are told, too.
func Watched(ctx context.Context, fn func(bytes int)) context.Context {
	if outer := watcher(ctx); outer != nil {
		inner := fn
		fn = func(n int) { inner(n); outer(n) }
	}
	return context.WithValue(ctx, watchKey{}, fn)
}

func watcher(ctx context.Context) func(int) {
	fn, _ := ctx.Value(watchKey{}).(func(int))
	return fn
}

// Tell tells those who watch ctx of bytes that arrived: for others than Client
// that answer calls.
func Tell(ctx context.Context, bytes int) {
	if fn := watcher(ctx); fn != nil {
		fn(bytes)
	}
}

// watched returns r, of which those who watch ctx are told.
func watched(ctx context.Context, r io.Reader) io.Reader {
	if tell := watcher(ctx); tell != nil {
		return &watchedReader{r, tell}
	}
	return r
}

type watchedReader struct {
	r    io.Reader
	tell func(bytes int)
}

// Read implements io.Reader.
func (w *watchedReader) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if n > 0 {
		w.tell(n)
	}
	return n, err
}
