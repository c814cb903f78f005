package daemon

import (
	"strings"
	"testing"
)

// A sync says what it leaves less safe than one may think, and else nothing.
func TestFrailtySay(t *testing.T) {
	for _, c := range []struct {
		f    frailty
		want string
	}{
		{frailty{}, ""},
		{frailty{frail: 3}, "3 packs survive the loss of no holder: with more peers"},
		{frailty{frail: 1}, "1 pack survives the loss of no holder: with more peers"},
		{frailty{frail: 3, weak: 2, both: 2}, "3 packs survive"},
		{frailty{weak: 2}, "2 packs, out before there were so many peers, are being stored again"},
		{frailty{frail: 1, weak: 1, both: 1}, "1 pack, out before there were so many peers, is being stored again"},
	} {
		got := c.f.say()
		if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%+v: %q", c.f, got)
		}
	}
}
