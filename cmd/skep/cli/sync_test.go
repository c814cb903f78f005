package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
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
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/sync", func(_ http.ResponseWriter, r *http.Request) {
		interrupt()
		<-r.Context().Done()
	})
	srv := &http.Server{Handler: mux}
	defer srv.Close()
	go func() { _ = srv.Serve(l) }()
	a := &app{homeDir: dir, out: io.Discard, errOut: io.Discard}
	if err := a.sync(ctx, 0); !errors.Is(err, errInterruptedSync) {
		t.Errorf("an interrupted sync ends with %v", err)
	}
}

// umount --wait unmounts when all is out, also if holders have lost some of it, which
// it says; and not when something is not out.
func TestUmountWaits(t *testing.T) {
	for name, c := range map[string]struct {
		synced    any
		status    int
		says      string
		unmounted bool
	}{
		"all is out":           {control.Synced{}, http.StatusOK, "", true},
		"something is lost":    {control.Synced{Lost: "parts of f are lost"}, http.StatusOK, "parts of f are lost", true},
		"something is not out": {control.Error{Message: "not everything", Code: 1}, http.StatusConflict, "not everything", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir("/") // from where it is given, it goes there
			dir := t.TempDir()
			l, err := control.Listen(home.Dir(dir).Socket())
			if err != nil {
				t.Fatal(err)
			}
			var unmounted atomic.Bool
			mux := http.NewServeMux()
			mux.HandleFunc("/v1/sync", func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_ = json.NewEncoder(w).Encode(c.synced)
			})
			mux.HandleFunc("/v1/umount", func(w http.ResponseWriter, _ *http.Request) {
				unmounted.Store(true)
				_ = json.NewEncoder(w).Encode(control.Unmounted{})
			})
			srv := &http.Server{Handler: mux}
			defer srv.Close()
			go func() { _ = srv.Serve(l) }()
			a := &app{homeDir: dir, out: io.Discard, errOut: io.Discard}
			cmd := a.umountCommand()
			cmd.SetArgs([]string{"--wait", filepath.Join(dir, "mnt")})
			cmd.SilenceErrors, cmd.SilenceUsage = true, true
			err = cmd.ExecuteContext(t.Context())
			if says := fmt.Sprint(err); (err != nil) != (c.says != "") || !strings.Contains(says, c.says) {
				t.Errorf("it ends with %v", err)
			}
			if unmounted.Load() != c.unmounted {
				t.Errorf("unmounted: %v", unmounted.Load())
			}
		})
	}
}
