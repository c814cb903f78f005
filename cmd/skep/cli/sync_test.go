package cli

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"skep/cmd/skep/control"
	"skep/cmd/skep/home"
)

// Who interrupts a sync is told what that leaves, not that the daemon is silent.
func TestInterruptedSync(t *testing.T) {
	dir := t.TempDir()
	l, err := control.Listen(home.Dir(dir).Socket())
	if err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	asked := make(chan string, 1)
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		interrupt()
		<-r.Context().Done()
	})}
	defer srv.Close()
	go func() { _ = srv.Serve(l) }()
	a := &app{homeDir: dir, out: io.Discard, errOut: io.Discard}
	if err := a.sync(ctx, 0); !errors.Is(err, errInterruptedSync) {
		t.Errorf("an interrupted sync ends with %v", err)
	}
	if path := <-asked; path != "/v1/sync" {
		t.Errorf("asked for %s", path)
	}
}
