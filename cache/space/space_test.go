package space

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func drawBytes(t *rapid.T, name string) int64 {
	return int64(math.Exp2(rapid.Float64Range(0, 44).Draw(t, name))) - 1
}

func drawUse(t *rapid.T) Use {
	u := Use{Content: drawBytes(t, "content"), Tables: drawBytes(t, "tables")}
	u.Unsynced = rapid.Int64Range(0, u.Content).Draw(t, "unsynced")
	return u
}

func drawDisk(t *rapid.T, u Use) Disk {
	d := Disk{Free: drawBytes(t, "free"), Promised: drawBytes(t, "promised")}
	d.Size = u.Total() + d.Free + drawBytes(t, "others")
	return d
}

func drawLimit(t *rapid.T) int64 {
	return rapid.SampledFrom([]int64{0, MinLimit, 1 << 30, 1 << 40}).Draw(t, "limit")
}

// Whatever the disk is like, the marks are in order and the disk has room for
// what they allow.
func TestMarksAreInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := drawUse(t)
		d, limit := drawDisk(t, u), drawLimit(t)
		m := MarksOf(limit, u, d)
		if m.Limit < 0 || m.Reserve < 0 || m.Low > m.High || m.High > m.Limit || m.Slow < 0 || m.Slow > m.Full || m.Low < min(u.Tables, m.Limit) {
			t.Fatalf("%+v", m)
		}
		ours := u.Total() + d.Free - keepFree(d)
		if m.Limit+m.Reserve > max(0, ours) {
			t.Fatalf("%+v goes beyond the %d bytes that the disk has for us", m, ours)
		}
		if m.Limit+m.Reserve > max(0, ours-d.Promised, min(u.Tables+leastContent, ours)) {
			t.Fatalf("%+v takes of the %d bytes that are promised to others", m, d.Promised)
		}
		if limit > 0 && m.Limit > max(limit, u.Tables+leastContent) {
			t.Fatalf("%+v, %d were asked for", m, limit)
		}
		wanted := rapid.Int64Range(0, m.Limit).Draw(t, "wanted")
		e := m.Excess(u, wanted)
		if (e == 0) != (u.Total() <= m.High && u.Total()+wanted <= m.Limit) {
			t.Fatalf("excess %d of %+v at %+v, %d wanted", e, u, m, wanted)
		}
		after := u.Total() - e
		if e < 0 || e > 0 && (after > m.Low || after+wanted > m.Limit || after < m.Low && after+wanted < m.Limit) {
			t.Fatalf("excess %d of %+v at %+v, %d wanted", e, u, m, wanted)
		}
	})
}

func TestShareOfTheDisk(t *testing.T) {
	d := Disk{Size: 100 << 30, Free: 60 << 30}
	u := Use{Content: 19 << 30, Tables: 1 << 30}
	if m := MarksOf(0, u, d); m.Limit != 40<<30 || m.Reserve != 10<<30 {
		t.Errorf("half of what others leave: %+v", m)
	}
	d.Promised = 30 << 30 // to peers: the cache makes room for them
	if m := MarksOf(0, u, d); m.Limit != 25<<30 {
		t.Errorf("beside an offer: %+v", m)
	}
	full := Disk{Size: 300 << 20, Promised: 140 << 20} // by others, who took what was promised too
	if m := MarksOf(0, Use{Content: 85 << 20, Tables: 30 << 20}, full); m.Limit != 46<<20 || m.Reserve != 0 {
		t.Errorf("more is promised than is left: %+v", m)
	}
	if m := MarksOf(90<<30, u, Disk{Size: 100 << 30, Free: 10 << 30}); m.Limit != 29<<30 || m.Reserve != 0 {
		t.Errorf("more than there is: %+v", m)
	}
}

// Writers are slowed more and more; half way they are as fast as the uplink.
func TestDelay(t *testing.T) {
	m := Marks{Slow: 100 << 20, Full: 200 << 20}
	const n, rate = 1 << 20, 10 << 20
	last := time.Duration(-1)
	for unsynced := int64(0); unsynced <= 220<<20; unsynced += 5 << 20 {
		d := m.Delay(Use{Waiting: unsynced}, n, rate)
		if d < last {
			t.Errorf("at %d it is %v, after %v", unsynced, d, last)
		}
		if unsynced <= m.Slow && d != 0 {
			t.Errorf("at %d writers wait %v", unsynced, d)
		}
		last = d
	}
	if d := m.Delay(Use{Waiting: 150 << 20}, n, rate); d != 100*time.Millisecond {
		t.Errorf("half way 1 MiB takes %v at 10 MiB/s", d)
	}
	if d := m.Delay(Use{Waiting: 150 << 20}, n, 0); d != time.Second/16 {
		t.Errorf("without an uplink 1 MiB takes %v", d)
	}
	if d := m.Delay(Use{Waiting: 199 << 20}, 10*n, 1); d != mostDelay {
		t.Errorf("with a very slow one 10 MiB take %v", d)
	}
}

// The speed of an uplink is what went out by the time it took, and follows when that
// changes.
func TestSpeed(t *testing.T) {
	var s Speed
	near := func(when string, want float64) {
		t.Helper()
		if r := s.Rate(); math.Abs(r-want) > want/20 {
			t.Errorf("%s it is %.0f bytes a second, not %.0f", when, r, want)
		}
	}
	s.Learn(0, time.Second) // the first pack is on its way
	if r := s.Rate(); r != 0 {
		t.Errorf("before anything arrived it is %f", r)
	}
	s.Learn(10<<20, 0) // it arrived
	s.Learn(0, 0)      // a rest
	near("after a pack", 10<<20)
	for range 100 {
		s.Learn(50<<20, time.Second)
	}
	near("when it became faster", 50<<20)
	for range 100 {
		s.Learn(100<<10, time.Second)
	}
	s.Learn(0, 2*time.Second)
	s.Learn(300<<10, time.Second)
	near("when it became slow", 100<<10)
}

// What is chosen is the least useful, and no more than is needed.
func TestChoose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Candidate {
			return Candidate{ID: rapid.Uint64().Draw(t, "id"), Bytes: drawBytes(t, "bytes"),
				Age: time.Duration(rapid.Int64Range(-1e9, 1e17).Draw(t, "age"))}
		}), 0, 40).Draw(t, "all")
		need, most := drawBytes(t, "need"), rapid.IntRange(0, 50).Draw(t, "most")
		got := Choose(all, need, most)
		if len(got) > most || len(got) > len(all) {
			t.Fatalf("%d of %d", len(got), most)
		}
		in := map[Candidate]int{}
		var sum, before int64
		worst := 0.0
		for _, c := range got {
			in[c]++
			before, sum = sum, sum+c.Bytes
			worst = max(worst, c.worth())
		}
		if len(got) > 0 && before >= need {
			t.Fatalf("%d bytes were enough without the last", before)
		}
		if sum < need && len(got) < min(most, len(all)) {
			t.Fatalf("%d bytes of %d, though there are more", sum, need)
		}
		for _, c := range all {
			if in[c]--; in[c] < 0 && c.worth() < worst {
				t.Fatalf("%+v is worth less than what was chosen", c)
			}
		}
	})
}

func TestWorth(t *testing.T) {
	hour := time.Hour
	for _, c := range []struct {
		less, more Candidate
		why        string
	}{
		{Candidate{Bytes: 1 << 20, Age: 2 * hour}, Candidate{Bytes: 1 << 20, Age: hour}, "it was used longer ago"},
		{Candidate{Bytes: 1 << 30, Age: hour}, Candidate{Bytes: 64 << 10, Age: hour}, "a byte of it costs less to fetch"},
		{Candidate{Bytes: 64 << 10, Age: 1000 * hour}, Candidate{Bytes: 1 << 30, Age: hour}, "it was used very long ago"},
		{Candidate{Bytes: 1 << 20, Age: hour}, Candidate{Bytes: 1 << 20, Age: -hour}, "the clock was set back"},
	} {
		if c.less.worth() >= c.more.worth() {
			t.Errorf("%+v should be worth less than %+v: %s", c.less, c.more, c.why)
		}
	}
}

// df adds up, is never negative, and what is written or deleted shows at once.
func TestRoom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := drawUse(t)
		m := MarksOf(drawLimit(t), u, drawDisk(t, u))
		s := Swarm{Known: rapid.Bool().Draw(t, "known"), Free: drawBytes(t, "free"), Takes: rapid.Bool().Draw(t, "takes")}
		used, full := drawBytes(t, "used"), rapid.Bool().Draw(t, "full")
		r := RoomOf(used, u, m, s, full)
		if r.Total != used+r.Free || r.Free < 0 {
			t.Fatalf("%+v", r)
		}
		if s.Known && r.Free > s.Free {
			t.Fatalf("%+v: the peers have %d", r, s.Free)
		}
		if !s.Takes && r.Free > m.Limit {
			t.Fatalf("%+v: nothing goes out, and %d fit here", r, m.Limit)
		}
		if full && r.Free > 0 && !m.Fits(u, r.Free) {
			t.Fatalf("%+v: writing less than that is refused", r)
		}
		u.Unsynced, u.Content = u.Unsynced+4096, u.Content+4096
		if later := RoomOf(used, u, m, s, full); later.Free > r.Free {
			t.Fatalf("%+v, %+v before more was written", later, r)
		}
	})
	if r := RoomOf(0, Use{}, Marks{Limit: 1 << 30}, Swarm{}, false); r.Free != 1<<30 {
		t.Errorf("no peer is known: %+v", r)
	}
	full := Use{Content: 800 << 20, Unsynced: 100 << 20, Tables: 24 << 20}
	away := Swarm{Known: true, Free: 10 << 30}
	if r := RoomOf(0, full, Marks{Limit: 1 << 30}, away, false); r.Free != 900<<20 {
		t.Errorf("nothing goes out: %+v", r)
	}
	if full.Pinned = 600 << 20; RoomOf(0, full, Marks{Limit: 1 << 30}, away, false).Free != 300<<20 {
		t.Errorf("what is pinned counts as room: %+v", RoomOf(0, full, Marks{Limit: 1 << 30}, away, false))
	}
	if away.Takes = true; RoomOf(0, full, Marks{Limit: 1 << 30}, away, false).Free != 10<<30-100<<20 {
		t.Error("what is pinned counts though all that is written goes out")
	}
}

func TestPassThrough(t *testing.T) {
	u, d := Use{}, Disk{Size: 100 << 30, Free: 50 << 30}
	if !MarksOf(0, u, d).PassThrough(u, d) {
		t.Error("there is plenty of room")
	}
	if m := MarksOf(MinLimit, u, d); m.PassThrough(u, d) {
		t.Error("a small cache cannot take a file of unknown size")
	}
	full := Disk{Size: 100 << 30, Free: 1 << 30}
	if m := MarksOf(40<<30, u, full); m.PassThrough(u, full) {
		t.Error("the disk is nearly full")
	}
	busy := Use{Content: 20 << 30, Waiting: 20 << 30}
	if m := MarksOf(30<<30, busy, d); m.PassThrough(busy, d) {
		t.Error("writers have to be slowed")
	}
}
