package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"skep/cmd/skep/control"
	"skep/cmd/skep/daemon"
)

// meter is how far something is that takes long.
type meter struct {
	what     string
	done, of int64
	bytes    bool
}

// gauge shows meters on one line of a terminal, with rate and remaining time.
// Where there is no terminal, it shows nothing.
type gauge struct {
	a    *app
	on   bool
	bar  *progressbar.ProgressBar
	last meter
}

func (a *app) gauge() *gauge {
	return &gauge{a: a, on: a.errOut == os.Stderr && term.IsTerminal(int(os.Stderr.Fd()))}
}

// show shows how far it is now.
func (g *gauge) show(m meter) {
	if !g.on || m.of <= 0 {
		return
	}
	if m.what == g.last.what && m.of == g.last.of {
		m.done = max(m.done, g.last.done) // what is done is not undone while the rest follows
	}
	if g.bar == nil || m.what != g.last.what || m.of < g.last.of {
		g.end()
		g.bar = progressbar.NewOptions64(m.of, progressbar.OptionSetDescription(m.what), progressbar.OptionShowBytes(m.bytes), progressbar.OptionUseIECUnits(true),
			progressbar.OptionSetWriter(g.a.errOut), progressbar.OptionSetPredictTime(true), progressbar.OptionShowCount(),
			progressbar.OptionSetWidth(24), progressbar.OptionThrottle(lookEvery))
	}
	if m.of != g.last.of {
		g.bar.ChangeMax64(m.of)
	}
	g.last = m
	_ = g.bar.Set64(min(m.done, m.of))
}

// finish shows that all is done.
func (g *gauge) finish() {
	if g.bar != nil {
		g.last.done = g.last.of
		g.show(g.last)
	}
}

// end leaves the line.
func (g *gauge) end() {
	if g.bar != nil {
		_ = g.bar.Exit()
		fmt.Fprintln(g.a.errOut)
		g.bar = nil
	}
}

// lookEvery is how often a daemon is asked how far it is.
const lookEvery = 300 * time.Millisecond

// waiting calls fn, which takes long, and meanwhile shows how far the daemon is,
// by what of its status tells so.
func (a *app) waiting(ctx context.Context, fn func() error, of func(control.Status) meter) error {
	g := a.gauge()
	if !g.on {
		return fn()
	}
	defer g.end()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err == nil {
				g.finish()
			}
			return err
		case <-tick.C:
		}
		var s control.Status
		if a.call(ctx, "/v1/status", daemon.StatusRequest{}, &s) == nil {
			g.show(of(s))
		}
	}
}
