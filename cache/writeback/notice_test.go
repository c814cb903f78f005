package writeback

import (
	"sync"
	"testing"
	"time"
)

func (n *notice) isWoken() bool {
	select {
	case <-n.wake:
		return true
	default:
		return false
	}
}

// The first change wakes the loop, the others are seen when it looks, and when
// there were none the next one wakes it again.
func TestNotice(t *testing.T) {
	n, l := newNotice(), look{}
	n.tell()
	n.tell()
	if !n.isWoken() || n.isWoken() {
		t.Fatal("not woken once")
	}
	l.again(&n, time.Unix(1, 0))
	n.tell()
	if n.isWoken() {
		t.Error("woken while it looks by itself")
	}
	if !l.more(&n) {
		t.Error("a change was not seen")
	}
	l.again(&n, time.Unix(2, 0))
	if l.more(&n) || !l.at.IsZero() {
		t.Error("saw a change that was not there")
	}
	n.tell()
	if !n.isWoken() {
		t.Error("not woken after it looked in vain")
	}
	n.take()
	n.tell()
	if !n.isWoken() {
		t.Error("not woken after a commit")
	}
}

// No change is ever overlooked, however it meets the loop.
func TestNoticeLosesNothing(t *testing.T) {
	const each, tellers = 20_000, 4
	n, l := newNotice(), look{}
	var all sync.WaitGroup
	for range tellers {
		all.Go(func() {
			for range each {
				n.tell()
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	lookAround := func() {
		for again := true; again; again = l.more(&n) {
			l.again(&n, time.Unix(1, 0))
		}
	}
	for running := true; running; {
		select {
		case <-n.wake:
			lookAround()
		case <-done:
			running = false
		}
	}
	if n.isWoken() {
		lookAround()
	}
	if l.seen != each*tellers {
		t.Errorf("saw %d of %d changes", l.seen, each*tellers)
	}
}
