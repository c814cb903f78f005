package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"skep/cmd/skep/control"
	"skep/cmd/skep/home"
)

func TestClock(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	peer := func(off time.Duration) Reached { return Reached{At: now, Clock: now.Add(off)} }
	for name, tt := range map[string]struct {
		now  time.Time
		all  []Reached
		want Verdict
	}{
		"alone":         {now, nil, Good},
		"like others":   {now, []Reached{peer(time.Second), peer(-4 * time.Minute)}, Good},
		"ahead":         {now, []Reached{peer(0), peer(-time.Hour)}, Odd},
		"behind":        {now, []Reached{peer(time.Hour)}, Odd},
		"who is silent": {now, []Reached{{Err: errors.New("away"), At: now}}, Good},
		"never set":     {time.Unix(1000, 0), nil, Broken},
	} {
		if f := Clock(tt.now, tt.all); f.Verdict != tt.want || (f.Do == "") != (tt.want == Good) {
			t.Errorf("%s: %+v, want %v", name, f, tt.want)
		}
	}
}

// A small disk is one on which a drive works, a full one is not.
func TestRoom(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for name, tt := range map[string]struct {
		size, free, promised int64
		want                 Verdict
	}{
		"much room":              {100 * gib, 50 * gib, 10 * gib, Good},
		"most of it is promised": {100 * gib, 50 * gib, 50 * gib, Odd},
		"a small disk":           {220 * mib, 219 * mib, 0, Odd},
		"half full":              {220 * mib, 110 * mib, 0, Odd},
		"nearly full":            {220 * mib, 70 * mib, 0, Broken},
		"a tiny disk":            {64 * mib, 63 * mib, 0, Broken},
		"a large one, full":      {100 * gib, gib - mib, 0, Broken},
		"and just not":           {100 * gib, gib + mib, 0, Good},
	} {
		f := room("/some/home", tt.size, tt.free, tt.promised)
		if f.Verdict != tt.want || (f.Do == "") != (tt.want == Good) {
			t.Errorf("%s: %+v, want %v", name, f, tt.want)
		}
	}
}

func TestDrive(t *testing.T) {
	for name, tt := range map[string]struct {
		s    control.Status
		want []Verdict
	}{
		"well":           {control.Status{Drive: "1", Packs: 3}, nil},
		"set back":       {control.Status{SetBack: "it is older", LastError: "it is older"}, []Verdict{Broken}},
		"overtaken":      {control.Status{Overtaken: "by another"}, []Verdict{Broken}},
		"damaged":        {control.Status{IndexDamage: "a table"}, []Verdict{Broken}},
		"alone and lost": {control.Status{LastError: "nobody is there", Packs: 3, PacksAway: 2}, []Verdict{Odd, Odd}},
	} {
		var got []Verdict
		for _, f := range Drive(tt.s) {
			got = append(got, f.Verdict)
			if f.Says == "" || f.Do == "" {
				t.Errorf("%s: %+v", name, f)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// A daemon that has the home and says nothing is told from one that takes no commands
// yet, or any more.
func TestDaemonThatDoesNotAnswer(t *testing.T) {
	h := home.Dir(t.TempDir())
	if err := h.SaveSettings(home.Settings{}); err != nil {
		t.Fatal(err)
	}
	release, err := h.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	for says, answer := range map[string]error{
		"does not answer":   fmt.Errorf("the daemon did not answer: %w", context.DeadlineExceeded),
		"takes no commands": control.ErrNotRunning,
	} {
		f := Daemon(h, func() error { return answer })
		if f.Verdict != Broken || !strings.Contains(f.Says, says) || !strings.Contains(f.Do, h.Log()) {
			t.Errorf("%v: %+v", answer, f)
		}
	}
}

// What is told of a storage peer's home is for one who runs a peer.
func TestHomeOfAPeer(t *testing.T) {
	h := home.Dir(t.TempDir())
	if err := h.SaveSettings(home.Settings{}); err != nil {
		t.Fatal(err)
	}
	f := Daemon(h, func() error { return control.ErrNotRunning })
	if !strings.Contains(f.Says, "skep peer starts it") {
		t.Errorf("%+v", f)
	}
	if f := Room(h, 1<<60, 0); !strings.Contains(f.Do, "skep peer --offer") {
		t.Errorf("%+v", f)
	}
}

// A home that is being made is not one to be made.
func TestHomeThatIsBeingMade(t *testing.T) {
	h := home.Dir(t.TempDir())
	release, err := h.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if f := Home(h); f.Verdict != Odd || !strings.Contains(f.Says, "is making this home") || f.Do != "" {
		t.Errorf("%+v", f)
	}
}
