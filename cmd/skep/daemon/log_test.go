package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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
