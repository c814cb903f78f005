package daemon

import (
	"context"
	"fmt"
	"io"
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
func NewLog(w io.Writer) *slog.Logger {
	if os.Getenv("SKEP_DEBUG") != "" {
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(newSeldom(slog.NewTextHandler(w, nil)))
}

// maxLog bounds the daemon's log, in bytes.
const maxLog = 16 << 20

// BoundLog returns a writer to a log that is appended to, which is emptied when it has come
// to maxLog. Calls must not overlap.
func BoundLog(f *os.File) io.Writer {
	b := &boundedLog{f: f, most: maxLog}
	if st, err := f.Stat(); err == nil {
		b.size = st.Size()
	}
	return b
}

type boundedLog struct {
	f          *os.File
	size, most int64
}

// Write implements io.Writer.
func (b *boundedLog) Write(p []byte) (int, error) {
	if b.size+int64(len(p)) > b.most && b.f.Truncate(0) == nil {
		b.size = 0
	}
	n, err := b.f.Write(p)
	b.size += int64(n)
	return n, err
}

const (
	// sayAgain is for how long what was logged is not logged again.
	sayAgain = 10 * time.Minute
	// mostSaid bounds how much is remembered for that.
	mostSaid = 256
	// mostAlike is how often the same message is logged in that time, whatever it is about:
	// peers can come under as many names as they like.
	mostAlike = 100
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
	mu    sync.Mutex // guards all below
	last  map[string]lastSaid
	alike map[string]int // how often a message was passed on since a time
	since time.Time
}

type lastSaid struct {
	at     time.Time
	unsaid int // how often it came since, and was not passed on
}

func newSeldom(next slog.Handler) *seldom {
	return &seldom{next: next, known: &said{last: map[string]lastSaid{}, alike: map[string]int{}}}
}

// Enabled implements slog.Handler.
func (h *seldom) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// Handle implements slog.Handler.
func (h *seldom) Handle(ctx context.Context, r slog.Record) error {
	unsaid, pass := h.known.note(h.text(r), r.Time)
	if !pass || !h.known.may(r.Message, r.Time) {
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

// may reports whether a message is to be passed on that was not lately about the same.
// There are only so many of them.
func (s *said) may(message string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.since).Abs() >= sayAgain {
		clear(s.alike)
		s.since = now
	}
	s.alike[message]++
	return s.alike[message] <= mostAlike
}

// WithAttrs implements slog.Handler.
func (h *seldom) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &seldom{h.next.WithAttrs(attrs), h.with + fmt.Sprint(attrs), h.known}
}

// WithGroup implements slog.Handler.
func (h *seldom) WithGroup(name string) slog.Handler {
	return &seldom{h.next.WithGroup(name), h.with + " " + name + ":", h.known}
}
