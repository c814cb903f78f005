package devices

import (
	"errors"
	"testing"
	"time"

	"skep/chunker/commit"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/chunker/link"
	"skep/chunker/secret"
)

var (
	now   = time.Unix(1_800_000_000, 0)
	self  = group.PeerKey{1}
	other = group.PeerKey{2}
)

// spread is a record whose copies are all of one number.
type spread struct {
	number       uint64
	slots, peers int
}

func (s spread) Spread(number uint64) (slots, peers int) {
	if number > s.number {
		return 0, 0
	}
	return s.slots, s.peers
}

// head is that of a commit of a device; place tells those of one number apart.
func head(device group.PeerKey, number uint64, place byte) commit.Head {
	h := commit.Head{Device: device, Number: number}
	h.Commit.Class, h.Commit.Coding = erasure.MaxClass, erasure.NewCoding(4, 7)
	h.Commit.Link.Codec, h.Commit.Link.Hash[0] = link.CBOR, place
	return h
}

// found is a head with all keepers that it should have.
func found(h commit.Head) Found {
	return Found{Device: keyring.Device{Key: h.Device, Created: 5}, Head: h, Heard: true, Copies: spread{h.Number, keyring.Slots, 8}}
}

func but(f Found, change func(*Found)) Found {
	change(&f)
	return f
}

// kind names what a view says: "" for nothing, "others", "back", or "unsure".
func kind(err error) string {
	_, others := errors.AsType[*OthersError](err)
	_, back := errors.AsType[*SetBackError](err)
	switch {
	case others:
		return "others"
	case back:
		return "back"
	case err != nil:
		return "unsure"
	}
	return ""
}

// A device is alone when its own head is the one that it knows, and of others none is
// newer, or there since, or has made what its newest commit does not follow.
func TestJudge(t *testing.T) {
	newest := &commit.Commit{Device: self, Number: 9, Follows: []commit.Followed{{Device: other, Number: 7}}}
	own, theirs := head(self, 9, 1), head(other, 7, 2)
	absent := func(f *Found) { f.Err = keyring.ErrAbsent }
	for name, c := range map[string]struct {
		found Found
		want  string
	}{
		"its own":                       {found(own), ""},
		"its own is lost":               {but(found(own), absent), "unsure"},
		"its own was not heard of":      {but(found(own), func(f *Found) { f.Err = ErrUnheard }), "unsure"},
		"a later one of its own":        {found(head(self, 10, 1)), "back"},
		"another one of that number":    {found(head(self, 9, 3)), "back"},
		"few copies of its own":         {but(found(own), func(f *Found) { f.Copies = spread{9, 2, 8} }), "unsure"},
		"all copies with one peer":      {but(found(own), func(f *Found) { f.Copies = spread{9, 5, 1} }), "unsure"},
		"few keepers of its own answer": {but(found(own), func(f *Found) { f.Heard = false }), "unsure"},
		"one that it follows":           {found(theirs), ""},
		"one that it does not":          {found(head(other, 8, 2)), "others"},
		"few copies of one":             {but(found(theirs), func(f *Found) { f.Copies = spread{7, 2, 8} }), "unsure"},
		"one cannot be read":            {but(found(theirs), func(f *Found) { f.Err = errors.New("no") }), "unsure"},
		"one that joined later":         {found(head(group.PeerKey{3}, 1, 2)), "others"},
		"one that was renewed since":    {but(found(theirs), func(f *Found) { f.Device.Created = 6 }), "others"},
		"one that has none":             {but(found(theirs), absent), ""},
	} {
		v := View{Self: self, Began: map[group.PeerKey]int64{other: 5}, Newest: newest, First: own, Last: own}
		v.Seen, _ = Presence{}.After([]Found{c.found}, now)
		if err := v.Judge([]Found{c.found}); kind(err) != c.want {
			t.Errorf("%s: %q (%v), not %q", name, kind(err), err, c.want)
		}
	}
}

// One that did nothing for long does not count, whatever it had made.
func TestJudgeWhoIsGone(t *testing.T) {
	f := found(head(other, 8, 2))
	gone := Presence{Devices: []Seen{{Device: other, Number: 8, Silent: int64(Horizon.Seconds())}}}
	if err := (View{Self: self, Seen: gone}).Judge([]Found{f}); err != nil {
		t.Error(err)
	}
}

// Of a head that is followed, few copies keep a device from being alone for a week, as long
// as most keepers answer: who had the others may have ended.
func TestJudgeFewCopies(t *testing.T) {
	newest := &commit.Commit{Device: self, Number: 9, Follows: []commit.Followed{{Device: other, Number: 7}}}
	few := but(found(head(other, 7, 2)), func(f *Found) { f.Copies = spread{7, 1, 1} })
	unheard := but(few, func(f *Found) { f.Heard = false })
	newer := but(few, func(f *Found) { f.Head.Number, f.Copies = 8, spread{8, 1, 1} })
	for days, want := range map[int][3]string{0: {"unsure", "unsure", "others"}, 6: {"unsure", "unsure", "others"}, 7: {"", "unsure", "others"}} {
		for i, f := range []Found{few, unheard, newer} {
			v := View{Began: map[group.PeerKey]int64{other: 5}, Newest: newest,
				Seen: Presence{Devices: []Seen{{Device: other, Created: 5, Number: f.Head.Number, Silent: int64(days) * int64(day.Seconds())}}}}
			if err := v.Judge([]Found{f}); kind(err) != want[i] {
				t.Errorf("case %d after %d days: %v", i, days, err)
			}
		}
	}
}

// A device that has made no commit yet has no head to be found, and one that was intended
// may be found or not.
func TestJudgeBeforeTheFirstCommit(t *testing.T) {
	absent := Found{Device: keyring.Device{Key: self}, Err: keyring.ErrAbsent}
	if err := (View{Self: self}).Judge([]Found{absent}); err != nil {
		t.Error(err)
	}
	intended := View{Self: self, First: head(self, 9, 1), Last: head(self, 10, 1)}
	for number, want := range map[uint64]string{9: "", 10: "", 11: "back"} {
		if err := intended.Judge([]Found{found(head(self, number, 1))}); kind(err) != want {
			t.Errorf("commit %d: %v", number, err)
		}
	}
}

// What another device had made, and nobody keeps any more, may come back with its keepers.
func TestJudgeWhoseHeadIsLost(t *testing.T) {
	f := Found{Device: keyring.Device{Key: other, Created: 5}, Err: keyring.ErrAbsent}
	newest := &commit.Commit{Device: self, Number: 9, Follows: []commit.Followed{{Device: other, Number: 7}}}
	for number, want := range map[uint64]string{0: "", 7: "", 8: "others"} {
		v := View{Began: map[group.PeerKey]int64{other: 5}, Newest: newest,
			Seen: Presence{Devices: []Seen{{Device: other, Created: 5, Number: number}}}}
		if err := v.Judge([]Found{f}); kind(err) != want {
			t.Errorf("commit %d was seen: %v", number, err)
		}
	}
}

// Of the heads that are not followed a recovery takes the one with the highest number, and
// of several the latest.
func TestRival(t *testing.T) {
	newest := &commit.Commit{Device: self, Number: 9, Follows: []commit.Followed{{Device: other, Number: 7}}}
	third, fourth := head(group.PeerKey{3}, 8, 0), head(group.PeerKey{4}, 8, 0)
	fourth.Time = third.Time + 1
	all := []Found{found(head(self, 12, 0)), found(head(other, 7, 0)), found(third), found(fourth),
		but(found(head(group.PeerKey{5}, 20, 0)), func(f *Found) { f.Err = ErrUnheard })}
	if r := Rival(all, self, newest); r == nil || r.Head != fourth {
		t.Errorf("%+v", r)
	}
	if r := Rival(all[:2], self, newest); r != nil {
		t.Errorf("%+v", r)
	}
}

// Keepers that have a head which this device knows, or an earlier one, say nothing of its
// being set back; all else that they have instead does.
func TestSetBackBy(t *testing.T) {
	root, drive := secret.Key{1}, keyring.DriveID{1}
	slots := keyring.HeadSlots(root, drive, self, keyring.Epoch{Number: 1, Read: secret.Key{2}})
	last := head(self, 9, 1)
	for name, c := range map[string]struct {
		has  commit.Head
		want bool
	}{
		"the same":                   {last, false},
		"an earlier one":             {head(self, 8, 3), false},
		"a later one":                {head(self, 10, 1), true},
		"another one of that number": {head(self, 9, 2), true},
	} {
		words, err := keyring.SealHead(slots, c.has.Number, now.Unix()+1, c.has.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if back := SetBackBy(slots, words, last); (back != nil) != c.want || back != nil && (back.Number != c.has.Number || back.Here != 9) {
			t.Errorf("%s: %+v", name, back)
		}
	}
	if SetBackBy(slots, [][]byte{[]byte("what is no record")}, last) == nil {
		t.Error("what cannot be read says nothing")
	}
}
