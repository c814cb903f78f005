package main

import "testing"

// A listing of a directory of the local disk, which changes meanwhile, is found to
// be right, and one that lacks a name or has one twice is not.
func TestListing(t *testing.T) {
	l := newListing(t.TempDir(), 3*atOnce)
	if err := l.make(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.list(); err != nil {
		t.Fatal(err)
	}
	if err := l.check(); err != nil {
		t.Error(err)
	}
	if len(l.changed) < 2+3 {
		t.Errorf("%d names changed", len(l.changed))
	}
	const stays = "f5"
	for _, n := range []int{0, 2} {
		l.seen[stays] = n
		if l.check() == nil {
			t.Errorf("nobody noticed that %s was listed %d times", stays, n)
		}
	}
}
