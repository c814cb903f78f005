package daemon

import (
	"testing"

	"skep/cache/blocks"
	"skep/chunker/group"
	"skep/repair/health"
)

// What holders are only presumed to have, and what those have who do not answer, nobody has
// said. Of a pack that repair has not heard of, who took it has said so.
func TestSaid(t *testing.T) {
	p := blocks.Pack{}
	p.Acked.Add(1)
	p.Acked.Add(4)
	h, known := health.PackHealth{Health: health.Healthy, Live: 7, Reachable: 3, Unasked: 4}, true
	d := &drive{health: func(group.ID, uint16) (health.PackHealth, bool) { return h, known }}
	if n := d.said(p); n != 3 {
		t.Errorf("%d have said so, and 3 were asked", n)
	}
	if known = false; d.said(p) != 2 {
		t.Errorf("%d have said so, and 2 took it", d.said(p))
	}
}
