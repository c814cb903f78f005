package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"
)

// What is logged again and again is said once, and after a while once more, with how
// often it came; all else is said at once.
func TestLogSaysTheSameSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(newSeldom(slog.NewTextHandler(&out, nil)))
		for i := range 100 {
			log.Warn("a commit failed", "err", fmt.Errorf("pack %d: nobody is there", i))
			time.Sleep(sayAgain / 60)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 2 || strings.Contains(lines[0], "repeated") || !strings.Contains(lines[1], "repeated=59") {
			t.Errorf("logged:\n%s", out.String())
		}
		out.Reset()
		log.Warn("a commit failed", "err", errors.New("another reason"))
		log.Info("a commit failed", "err", errors.New("pack 1: nobody is there"))
		log.Warn("a commit failed", "peer", 1, "err", errors.New("pack 1: nobody is there"))
		log.Warn("a commit failed", "peer", 2, "err", errors.New("pack 1: nobody is there"))
		log.With("drive", 2).Warn("a commit failed", "err", errors.New("pack 1: nobody is there"))
		if n := strings.Count(out.String(), "\n"); n != 5 {
			t.Errorf("%d lines:\n%s", n, out.String())
		}
	})
}

// What is remembered has a bound.
func TestLogForgets(t *testing.T) {
	h := newSeldom(slog.DiscardHandler)
	for i := range 10 * mostSaid {
		h.known.note(strings.Repeat("x", i), time.Unix(1, 0))
	}
	if n := len(h.known.last); n > mostSaid {
		t.Errorf("%d records are remembered", n)
	}
}

// What anybody can have logged of ever new names is said so often and no more.
func TestLogOfEverNewPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(newSeldom(slog.NewTextHandler(&out, nil)))
		for i := range 3 * mostAlike {
			log.Warn("a holder lied", "peer", i)
		}
		log.Info("another message")
		if n := strings.Count(out.String(), "\n"); n != mostAlike+1 {
			t.Errorf("%d lines", n)
		}
		time.Sleep(sayAgain)
		log.Warn("a holder lied", "peer", 9*mostAlike)
		if n := strings.Count(out.String(), "\n"); n != mostAlike+2 {
			t.Errorf("%d lines after a while", n)
		}
	})
}

// The daemon's log is emptied when it is full; what it had before the daemon began counts.
func TestLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, bytes.Repeat([]byte{'x'}, 90), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := BoundLog(f).(*boundedLog)
	b.most = 100
	for _, c := range []struct {
		line string
		size int
	}{{"ten bytes\n", 100}, {"the next\n", 9}, {"one more\n", 18}} {
		if n, err := b.Write([]byte(c.line)); n != len(c.line) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if got, err := os.ReadFile(path); len(got) != c.size || !strings.HasSuffix(string(got), c.line) || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
}

func TestLogIsAHandler(t *testing.T) {
	var out bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		out.Reset()
		return newSeldom(slog.NewJSONHandler(&out, nil))
	}, func(t *testing.T) map[string]any {
		var m map[string]any
		if err := json.Unmarshal(out.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		return m
	})
}
