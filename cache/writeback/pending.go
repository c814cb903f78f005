package writeback

import (
	"sync"
	"time"
)

// tellsFor is for how many times as long as it took to count what is pending that
// is told again to whoever asks: where many files change, to count them at each
// question would take a processor of its own.
const tellsFor = 10

// pending remembers what was counted last.
type pending struct {
	mu sync.Mutex // guards all below; held while somebody counts
	pendingCount
	until   time.Time // when it is counted anew
	commits uint64    // that had ended when it was counted
}

// pendingCount is how many entries changed since the newest commit, and how many
// bytes of content a commit has to look at because of them.
type pendingCount struct{ entries, bytes int64 }

// holds reports whether the last count may still be told.
func (p *pending) holds(now time.Time, commits uint64) bool {
	return commits == p.commits && now.Before(p.until)
}

// counted takes note of a count that lasted from begin to end.
func (p *pending) counted(n pendingCount, begin, end time.Time, commits uint64) {
	p.pendingCount, p.until, p.commits = n, end.Add(tellsFor*end.Sub(begin)), commits
}

// Pending returns how many entries changed since the newest commit, and how many
// bytes of content a commit has to look at because of them. It is as of now where
// few changed; never as of before the last commit ended.
func (e *Engine) Pending() (entries, bytes int64, err error) {
	p := &e.pending
	p.mu.Lock()
	defer p.mu.Unlock()
	e.mu.Lock()
	commits := e.commits
	e.mu.Unlock()
	begin := time.Now()
	if p.holds(begin, commits) {
		return p.entries, p.bytes, nil
	}
	var n pendingCount
	if n.entries, n.bytes, err = e.cfg.Tree.Pending(); err != nil {
		return 0, 0, err
	}
	p.counted(n, begin, time.Now(), commits)
	return n.entries, n.bytes, nil
}
