package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// NewLog returns the daemon's log on a file. It says the same thing seldom: what is
// tried again and again while the swarm is away would else fill the disk. With
// SKEP_DEBUG it says everything.
func NewLog(w *os.File) *slog.Logger {
	if os.Getenv("SKEP_DEBUG") != "" {
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(newSeldom(slog.NewTextHandler(w, nil)))
}

const (
	// sayAgain is for how long what was logged is not logged again.
	sayAgain = 10 * time.Minute
	// mostSaid bounds how much is remembered for that.
	mostSaid = 256
)

// seldom is a slog.Handler that passes on what was not said lately, with how often it
// came meanwhile.
type seldom struct {
	next  slog.Handler
	with  string // attributes and groups that all records have
	known *said
}

// said is what was passed on lately.
type said struct {
	mu   sync.Mutex // guards all below
	last map[string]lastSaid
}

type lastSaid struct {
	at     time.Time
	unsaid int // how often it came since, and was not passed on
}

func newSeldom(next slog.Handler) *seldom {
	return &seldom{next: next, known: &said{last: map[string]lastSaid{}}}
}

// Enabled implements slog.Handler.
func (h *seldom) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// Handle implements slog.Handler.
func (h *seldom) Handle(ctx context.Context, r slog.Record) error {
	unsaid, pass := h.known.note(h.text(r), r.Time)
	if !pass {
		return nil
	}
	if unsaid > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("repeated", unsaid))
	}
	return h.next.Handle(ctx, r)
}

// text is all of a record but its time. Errors are the same that differ in numbers: the
// next pack fails like the one before.
func (h *seldom) text(r slog.Record) string {
	var b strings.Builder
	fmt.Fprint(&b, r.Level, r.Message, h.with)
	r.Attrs(func(a slog.Attr) bool {
		what := a.String()
		if _, isError := a.Value.Any().(error); isError {
			what = numbers.ReplaceAllString(what, "#")
		}
		b.WriteString(" " + what)
		return true
	})
	return b.String()
}

// numbers are words with a digit: counts, ports, and the names of peers and blocks.
var numbers = regexp.MustCompile(`[0-9A-Za-z]*[0-9][0-9A-Za-z]*`)

// note takes note that something comes, and reports whether it is to be passed on, and
// how often it was not since the last time.
func (s *said) note(what string, now time.Time) (unsaid int, pass bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, known := s.last[what]
	if known && now.Sub(was.at).Abs() < sayAgain {
		was.unsaid++
		s.last[what] = was
		return 0, false
	}
	if !known && len(s.last) >= mostSaid {
		clear(s.last)
	}
	s.last[what] = lastSaid{at: now}
	return was.unsaid, true
}

// WithAttrs implements slog.Handler.
func (h *seldom) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &seldom{h.next.WithAttrs(attrs), h.with + fmt.Sprint(attrs), h.known}
}

// WithGroup implements slog.Handler.
func (h *seldom) WithGroup(name string) slog.Handler {
	return &seldom{h.next.WithGroup(name), h.with + " " + name + ":", h.known}
}
