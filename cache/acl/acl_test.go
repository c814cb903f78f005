package acl

import (
	"bytes"
	"reflect"
	"testing"
)

// named is a list with a named user and a mask.
func named() List {
	return List{{UserObj, 7, noID}, {User, 6, 1000}, {GroupObj, 5, noID}, {Group, 7, 100}, {Mask, 6, noID}, {Other, 1, noID}}
}

func plain(mode uint16) List {
	return List{{UserObj, mode >> 6 & 7, noID}, {GroupObj, mode >> 3 & 7, noID}, {Other, mode & 7, noID}}
}

func TestBytes(t *testing.T) {
	want := []byte{2, 0, 0, 0,
		1, 0, 6, 0, 255, 255, 255, 255,
		4, 0, 4, 0, 255, 255, 255, 255,
		32, 0, 4, 0, 255, 255, 255, 255}
	if got := plain(0o644).Bytes(); !bytes.Equal(got, want) {
		t.Errorf("bytes: %v", got)
	}
	got, err := Parse(named().Bytes())
	if err != nil || !reflect.DeepEqual(got, named()) {
		t.Errorf("parsed: %v, %v", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for what, l := range map[string]List{
		"no entries":           {},
		"no others":            named()[:5],
		"names without a mask": {{UserObj, 7, noID}, {User, 6, 1}, {GroupObj, 5, noID}, {Other, 0, noID}},
		"two owners":           append(List{{UserObj, 7, noID}}, plain(0o644)...),
		"out of order":         {{GroupObj, 5, noID}, {UserObj, 7, noID}, {Other, 0, noID}},
		"too many permissions": {{UserObj, 8, noID}, {GroupObj, 5, noID}, {Other, 0, noID}},
		"unknown tag":          {{UserObj, 7, noID}, {3, 0, noID}, {GroupObj, 5, noID}, {Other, 0, noID}},
	} {
		if got, err := Parse(l.Bytes()); err == nil {
			t.Errorf("%s: parsed as %v", what, got)
		}
	}
	b := plain(0o644).Bytes()
	for what, b := range map[string][]byte{"empty": nil, "cut": b[:len(b)-1], "another version": append([]byte{1}, b[1:]...)} {
		if got, err := Parse(b); err == nil {
			t.Errorf("%s: parsed as %v", what, got)
		}
	}
}

func TestMode(t *testing.T) {
	if got := named().Mode(); got != 0o761 {
		t.Errorf("mode %o, want 761: the group's bits are the mask's", got)
	}
	if got := plain(0o640).Mode(); got != 0o640 || !plain(0o640).Plain() || named().Plain() {
		t.Errorf("mode %o", got)
	}
	changed := named().WithMode(0o4640)
	want := List{{UserObj, 6, noID}, {User, 6, 1000}, {GroupObj, 5, noID}, {Group, 7, 100}, {Mask, 4, noID}, {Other, 0, noID}}
	if !reflect.DeepEqual(changed, want) {
		t.Errorf("after chmod 640: %v", changed)
	}
	if got := plain(0o777).WithMode(0o123); got.Mode() != 0o123 {
		t.Errorf("a plain list after chmod 123: %v", got)
	}
}

func TestInherit(t *testing.T) {
	l, mode := named().Inherit(0o102640)
	if mode != 0o102640 {
		t.Errorf("mode %o, want 102640", mode)
	}
	want := List{{UserObj, 6, noID}, {User, 6, 1000}, {GroupObj, 5, noID}, {Group, 7, 100}, {Mask, 4, noID}, {Other, 0, noID}}
	if !reflect.DeepEqual(l, want) {
		t.Errorf("list: %v", l)
	}
	if l, mode := plain(0o750).Inherit(0o777); mode != 0o750 || !l.Plain() {
		t.Errorf("plain: %o, %v", mode, l)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(plain(0o644).Bytes())
	f.Add(named().Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Parse(b)
		if err != nil {
			return
		}
		again, err := Parse(l.Bytes())
		if err != nil || !reflect.DeepEqual(again, l) {
			t.Errorf("%x became %v, then %v, %v", b, l, again, err)
		}
		if m := l.Mode(); l.WithMode(m).Mode() != m {
			t.Errorf("%v: mode %o does not last", l, m)
		}
	})
}
