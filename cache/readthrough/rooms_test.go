package readthrough

import "testing"

// A room is used again only if nobody can still write to it.
func TestRooms(t *testing.T) {
	for _, tt := range []struct {
		what   string
		asked  int // holders, before the source returned
		fitted bool
		late   int // holders that come to take a room afterwards
		again  bool
	}{
		{"from one holder", 1, true, 0, true},
		{"did not fit", 1, false, 0, false},
		{"one of two", 2, true, 0, false},
		{"another one later", 1, true, 1, false},
		{"no room was taken", 0, false, 0, false},
	} {
		var r rooms
		take := func(n int) {
			for range n {
				if b := r.give()(100); len(b) != 100 {
					t.Errorf("%s: a room of %d bytes", tt.what, len(b))
				}
			}
		}
		take(tt.asked)
		r.used(tt.fitted)
		take(tt.late)
		if got := r.last() != nil; got != tt.again {
			t.Errorf("%s: used again: %v", tt.what, got)
		}
	}
	if b := new(rooms).give()(blockRooms.size + 1); b != nil {
		t.Errorf("a room of %d bytes", len(b))
	}
}
