package writeback

import (
	"context"
	"sync"
	"time"
)

const (
	// restsFor is how many times as long as it worked a commit rests that nobody
	// waits for.
	restsFor = 7
	// leastRest is how long it rests at once, at least: going to sleep costs more
	// than most pieces.
	leastRest = 5 * time.Millisecond
)

// pace has a commit that nobody waits for do its work piece by piece and rest in
// between, so that it takes the same part of one processor whatever it has to do
// and however many there are: who uses the drive meanwhile keeps the rest. As
// soon as somebody waits, it goes on at full speed.
type pace struct {
	turn chan struct{} // a token for who works; owed and last belong to who has it
	owed time.Duration // rest that is due
	last time.Time     // when the last piece ended
	way  chan struct{} // a token for the pack on its way that nobody waits for

	mu      sync.Mutex    // guards all below
	waiting int           // who wait for a commit
	urged   bool          // somebody waits for room, until a commit ends
	hurry   chan struct{} // closed while anybody waits
}

func newPace() *pace {
	return &pace{turn: make(chan struct{}, 1), way: make(chan struct{}, 1), hurry: make(chan struct{})}
}

// wait says that somebody waits for a commit, until the returned function is
// called.
func (p *pace) wait() (done func()) {
	p.change(func() { p.waiting++ })
	return func() { p.change(func() { p.waiting-- }) }
}

// urge says that somebody waits for what the commit under way, or else the next
// one, does.
func (p *pace) urge() { p.change(func() { p.urged = true }) }

// ended says that a commit ended.
func (p *pace) ended() { p.change(func() { p.urged = false }) }

func (p *pace) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.waiting > 0 || p.urged
	f()
	switch after := p.waiting > 0 || p.urged; {
	case after && !before:
		close(p.hurry)
	case before && !after:
		p.hurry = make(chan struct{})
	}
}

// isHurried reports whether anybody waits.
func (p *pace) isHurried() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting > 0 || p.urged
}

func (p *pace) hurried() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hurry
}

// work does one piece of a commit's work when its turn has come. Pieces must not
// contain each other.
func (p *pace) work(ctx context.Context, piece func() error) error {
	hurry := p.hurried()
	select {
	case <-hurry:
		return piece()
	default:
	}
	select {
	case p.turn <- struct{}{}:
	case <-hurry:
		return piece()
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.turn }()
	if err := p.rest(ctx, hurry); err != nil {
		return err
	}
	begin := time.Now()
	defer func() {
		p.last = time.Now()
		p.owed += restsFor * p.last.Sub(begin)
	}()
	return piece()
}

// alone returns when no other pack is on its way, or somebody waits: each takes
// memory. The caller's is on its way until done.
func (p *pace) alone(ctx context.Context) (done func(), err error) {
	select {
	case p.way <- struct{}{}:
		return func() { <-p.way }, nil
	case <-p.hurried():
		return func() {}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// rest returns when as much as is due was rested, or nobody may rest.
func (p *pace) rest(ctx context.Context, hurry <-chan struct{}) error {
	p.owed = max(0, p.owed-time.Since(p.last))
	if p.last = time.Now(); p.owed < leastRest {
		return nil
	}
	t := time.NewTimer(p.owed)
	defer t.Stop()
	select {
	case <-t.C:
		p.owed = 0
	case <-hurry:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
