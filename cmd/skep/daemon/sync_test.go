package daemon

import (
	"errors"
	"strings"
	"testing"

	"skep/cache/reseal"
)

// Where holders have lost something, a sync goes on all the same with what they have too
// little of, and says what is left of both.
func TestSyncOfWhatIsLostAndFrail(t *testing.T) {
	lost, frail, broken := &LostError{reseal.Found{Gone: []string{"/f"}}}, &FrailError{OnlyHere: 2}, errors.New("broken")
	for i, c := range []struct {
		first, then error
		goesOn      bool
		lost        []string
		err         error
	}{
		{nil, nil, true, nil, nil},
		{nil, frail, true, nil, frail},
		{lost, nil, true, []string{"/f"}, nil},
		{lost, frail, true, []string{"/f", "2 packs with names"}, nil},
		{lost, broken, true, nil, broken},
		{broken, nil, false, nil, broken},
	} {
		wentOn := false
		out, err := withFrail(c.first, func() (string, error) { wentOn = true; return "less safe", c.then })
		if wentOn != c.goesOn || !errors.Is(err, c.err) || (out.Lost != "") != (c.lost != nil) {
			t.Errorf("%d: went on %v: %+v, %v", i, wentOn, out, err)
		}
		for _, want := range c.lost {
			if !strings.Contains(out.Lost, want) {
				t.Errorf("%d: %q does not name %s", i, out.Lost, want)
			}
		}
		if c.first == nil && c.then == nil && out.Frail != "less safe" {
			t.Errorf("%d: %+v", i, out)
		}
	}
}
