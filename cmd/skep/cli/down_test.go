package cli

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"skep/cmd/skep/control"
	"skep/cmd/skep/daemon"
	"skep/cmd/skep/home"
)

// The end of a daemon is waited for, and not that of the one that came after it.
func TestWaitDown(t *testing.T) {
	h := home.Dir(t.TempDir())
	release, err := h.Lock()
	if err != nil {
		t.Fatal(err)
	}
	l, err := control.Listen(h.Socket())
	if err != nil {
		t.Fatal(err)
	}
	began, asked := time.Now(), make(chan struct{}, 100)
	srv := &http.Server{Handler: control.Handler(func(context.Context, daemon.StatusRequest) (control.Status, error) {
		asked <- struct{}{}
		return control.Status{Began: began}, nil
	})}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	defer func() { _ = srv.Close(); <-ended }()

	if err := waitDown(t.Context(), h, began.Add(-time.Second)); err != nil {
		t.Errorf("another daemon has the home: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for range 3 {
			<-asked
		}
		cancel()
	}()
	if err := waitDown(ctx, h, began); !errors.Is(err, context.Canceled) {
		t.Errorf("the daemon still has the home: %v", err)
	}
	release()
	if err := waitDown(t.Context(), h, began); err != nil {
		t.Errorf("nobody has the home: %v", err)
	}
}
