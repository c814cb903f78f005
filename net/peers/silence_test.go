package peers

import (
	"testing"
	"time"

	"skep/net/wire"
)

const day = 24 * time.Hour

// watched has peer 1 answer and the others miss, every ten minutes, for so long.
func (c *clock) watched(d *Directory, so time.Duration, silent ...int) {
	for end := c.now.Add(so); c.now.Before(end); {
		c.advance(10 * time.Minute)
		d.Seen(key(1), "")
		for _, n := range silent {
			d.Missed(key(n))
		}
	}
}

func expectState(t *testing.T, d *Directory, n int, want State, when string) {
	t.Helper()
	if p := get(t, d, n); p.State != want {
		t.Errorf("%s: %v, silent for %v, want %v", when, p.State, p.Silent, want)
	}
}

// Who is silent while others answer is suspect, then dead, then forgotten; and counts
// as soon as it is back.
func TestTheSilentAreSuspectDeadForgotten(t *testing.T) {
	c := newClock()
	o := Options{Clock: c.Now}
	d := New(o)
	d.Said(key(2), wire.Hello{Offered: 1, Free: 1})
	c.watched(d, 5*time.Hour, 2)
	expectState(t, d, 2, Alive, "after five hours")
	if p := get(t, d, 2); p.Misses != 30 || get(t, d, 1).Misses != 0 {
		t.Errorf("missed %d times", p.Misses)
	}
	c.watched(d, 2*time.Hour, 2)
	expectState(t, d, 2, Suspect, "after seven hours")
	d, err := Decode(d.Encode(), o)
	if err != nil {
		t.Fatal(err)
	}
	expectState(t, d, 2, Suspect, "after a restart")
	c.watched(d, 64*time.Hour, 2)
	expectState(t, d, 2, Suspect, "before three days")
	c.watched(d, 2*time.Hour, 2)
	expectState(t, d, 2, Dead, "after three days")
	d.Judge(key(2), Suspect)
	expectState(t, d, 2, Suspect, "health says so")
	d.Judge(key(2), Unknown)
	expectState(t, d, 2, Dead, "health says nothing")
	d.Seen(key(2), "")
	if p := get(t, d, 2); p.State != Alive || p.Silent != 0 || p.Misses != 0 {
		t.Errorf("it is back: %+v", p)
	}
	c.watched(d, 29*day, 2)
	expectState(t, d, 2, Dead, "after 29 days")
	c.watched(d, 2*day, 2)
	if _, ok := d.Get(key(2)); ok {
		t.Error("it is not forgotten after 31 days")
	}
	d.Said(key(2), wire.Hello{Offered: 1, Free: 1})
	expectState(t, d, 2, Alive, "it is back again")
}

// Holders of something of ours are not forgotten, nor is who lied; who was only heard
// of is.
func TestWhoIsForgotten(t *testing.T) {
	c := newClock()
	d := New(Options{Clock: c.Now})
	for n := 2; n <= 3; n++ {
		d.Seen(key(n), "")
	}
	d.Pin(key(2), true)
	d.Strike(key(3))
	d.Heard(key(4), "somewhere")
	c.watched(d, 29*day, 2, 3, 4)
	expectState(t, d, 4, Unknown, "heard of")
	c.watched(d, 2*day, 2, 3, 4)
	expectState(t, d, 2, Dead, "a holder")
	expectState(t, d, 3, Dead, "a liar")
	if _, ok := d.Get(key(4)); ok {
		t.Error("who never answered is not forgotten")
	}
}

// While we are away nobody is to blame, nor before there was time to ask.
func TestOurOwnAbsenceMakesNobodyGone(t *testing.T) {
	for name, away := range map[string]func(*clock, *Directory){
		"off":        func(c *clock, _ *Directory) { c.advance(60 * day) },
		"offline":    func(c *clock, d *Directory) { c.offline(d, 60*day) },
		"not asking": func(c *clock, d *Directory) { c.watched(d, 60*day) },
		"asleep, an hour a day awake": func(c *clock, d *Directory) {
			for range 4 {
				c.watched(d, time.Hour)
				c.advance(23 * time.Hour)
			}
		},
	} {
		c := newClock()
		d := New(Options{Clock: c.Now})
		d.Said(key(2), wire.Hello{Offered: 1, Free: 1})
		c.watched(d, time.Hour)
		away(c, d)
		d.Seen(key(1), "")
		expectState(t, d, 1, Alive, name+": who answered")
		expectState(t, d, 2, Unknown, name+": who was not asked")
		c.watched(d, 7*time.Hour, 2)
		expectState(t, d, 2, Suspect, name+": seven hours later")
	}
}

// offline has nobody answer for so long.
func (c *clock) offline(d *Directory, so time.Duration) {
	for end := c.now.Add(so); c.now.Before(end); c.advance(10 * time.Minute) {
		d.Missed(key(1))
		d.Missed(key(2))
	}
}

// On the time scale of a demo there is time for three greetings.
func TestSilenceOnAShortScale(t *testing.T) {
	c := newClock()
	d := New(Options{Clock: c.Now, DeadAfter: 2 * time.Second})
	d.Seen(key(2), "")
	d.Seen(key(1), "")
	for s, want := range []State{Alive, Alive, Alive, Dead} {
		c.advance(time.Second)
		d.Seen(key(1), "")
		d.Missed(key(2))
		if p := get(t, d, 2); p.State != want {
			t.Errorf("after %d s: %v, want %v", s+1, p.State, want)
		}
	}
}
