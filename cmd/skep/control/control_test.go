package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes are connections within this process. It is a net.Listener.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, open := <-p
	if !open {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return nil }

func (p pipes) client() *Client {
	return &Client{http: http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			p <- there
			return here, nil
		},
	}}}
}

// What takes long may take long, of a daemon that answers.
func TestLongCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := make(pipes, 8)
		mux := http.NewServeMux()
		mux.Handle("/v1/sync", Handler(func(context.Context, Sync) (Synced, error) {
			time.Sleep(24 * time.Hour)
			return Synced{Lost: "much"}, nil
		}))
		srv := &http.Server{Handler: mux}
		go func() { _ = srv.Serve(p) }()
		c := p.client()
		var out Synced
		if err := c.Call(t.Context(), "/v1/sync", Sync{}, &out); err != nil || out.Lost != "much" {
			t.Errorf("%+v, %v", out, err)
		}
		c.http.CloseIdleConnections()
		close(p)
		_ = srv.Close()
	})
}

// A daemon that takes connections and answers nothing is told to be silent; a caller that
// waits no longer is not told so.
func TestSilentDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := make(pipes, 8)
		err := p.client().Call(t.Context(), "/v1/status", struct{}{}, nil)
		if !errors.Is(err, ErrSilent) || errors.Is(err, ErrNotRunning) {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = p.client().Call(ctx, "/v1/status", struct{}{}, nil)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrSilent) {
			t.Error(err)
		}
	})
}

// It is known which process listens at a socket.
func TestListenerIsKnown(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	srv := &http.Server{Handler: http.NotFoundHandler()}
	defer srv.Close()
	go func() { _ = srv.Serve(l) }()
	c := NewClient(socket)
	err = c.Call(t.Context(), "/v1/status", struct{}{}, nil)
	if e := (&Error{}); !errors.As(err, &e) || !strings.HasPrefix(e.Message, fmt.Sprint(http.StatusNotFound)) {
		t.Error(err)
	}
	if pid := c.pid.Load(); int(pid) != os.Getpid() {
		t.Errorf("process %d is said to listen", pid)
	}
}
