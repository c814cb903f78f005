package readthrough

import "testing"

// Who wants one chunk after the other goes in order, also if some that are asked for at
// once come in another order; who jumps, or leaves chunks out, does not. What was begun
// ahead of him is not begun again.
func TestProgress(t *testing.T) {
	for _, tt := range []struct {
		wants []int64
		order bool
		at    int64
	}{
		{[]int64{10}, false, 10},
		{[]int64{10, 11}, true, 11},
		{[]int64{0, 1, 2, 3}, true, 3},
		{[]int64{5, 7}, false, 7},
		{[]int64{5, 7, 6}, true, 7},
		{[]int64{0, 1, 5, 3, 2, 4}, true, 5},
		{[]int64{0, 1, 2, 3, 4, 5, 6, 8, 7, 10, 9, 12}, true, 12},
		{[]int64{0, 2, 4, 6, 8, 10, 12, 14, 16}, false, 16},
		{[]int64{0, 4, 8, 12, 16, 20}, false, 20},
		{[]int64{0, 1, 2, 3, 4, 90}, false, 90},
		{[]int64{90, 91, 92, 3}, false, 3},
		{[]int64{90, 3, 91, 4, 92, 5}, false, 5},
	} {
		p := progress{at: -8 * jump}
		for _, i := range tt.wants {
			p.want(i)
		}
		if p.inOrder() != tt.order || p.at != tt.at || p.begun < p.at {
			t.Errorf("%v: in order: %v; at %d, begun up to %d", tt.wants, p.inOrder(), p.at, p.begun)
		}
	}
	p := progress{first: 0, at: 9, begun: 17, seen: 0xff}
	for _, i := range []int64{11, 10, 12} {
		p.want(i)
		if p.begun != 17 {
			t.Errorf("after %d what was begun up to 17 is begun again from %d", i, p.begun)
		}
	}
	if p.at != 12 {
		t.Errorf("at %d", p.at)
	}
}
