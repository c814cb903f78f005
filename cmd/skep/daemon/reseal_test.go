package daemon

import (
	"errors"
	"testing"

	"skep/cache/reseal"
	"skep/chunker/group"
)

// All is looked through when packs come to be lost, or are no more, and now and then while
// some are; not while repair is paused, and not because it was.
func TestWhenLostContentIsLookedFor(t *testing.T) {
	lost := func(numbers ...uint16) (g gone) {
		var packs group.Bitmap
		for _, n := range numbers {
			packs.Add(n)
		}
		if len(numbers) > 0 {
			g.lost = reseal.Lost{group.ID{1}: packs}
		}
		return g
	}
	var last lookout
	for i, c := range []struct {
		gone   gone
		paused bool
		pauses int // alike
		looks  int
	}{
		{lost(), false, 2 * lookAgain, 0},
		{lost(1), false, lookAgain, 1},
		{lost(1), false, 1, 1},
		{lost(1), true, 3, 0},
		{lost(1), false, lookAgain - 4, 0},
		{lost(1), true, 2 * lookAgain, 0},
		{lost(1), false, 1, 1},
		{lost(1, 2), true, 3, 0},
		{lost(1, 2), false, 3, 1},
		{lost(), false, 3, 1},
		{lost(), true, 3, 0},
		{lost(), false, 2 * lookAgain, 0},
	} {
		looks := 0
		for range c.pauses {
			if last.pause(c.gone, c.paused) {
				last = lookout{seen: c.gone}
				looks++
			}
		}
		if looks != c.looks {
			t.Errorf("step %d: looked %d times, not %d", i, looks, c.looks)
		}
	}
}

// A sync that found content again ends well only when a look after it finds no more.
func TestAllLostContentIsOutAgain(t *testing.T) {
	broken := errors.New("broken")
	again := reseal.Found{Again: 1}
	for name, c := range map[string]struct {
		finds []reseal.Found // the last one for ever
		sync  error
		want  error
		syncs int
	}{
		"nothing":          {finds: []reseal.Found{{}}},
		"once":             {finds: []reseal.Found{again, {}}, syncs: 1},
		"more each time":   {finds: []reseal.Found{again}, want: errComesUp, syncs: mostRounds},
		"a sync that ends": {finds: []reseal.Found{again}, sync: broken, want: broken, syncs: 1},
	} {
		looks, syncs := 0, 0
		err := allAgain(func() (reseal.Found, error) {
			looks++
			return c.finds[min(looks, len(c.finds))-1], nil
		}, func() error { syncs++; return c.sync })
		if !errors.Is(err, c.want) || syncs != c.syncs {
			t.Errorf("%s: %d syncs, %v", name, syncs, err)
		}
	}
	gone := reseal.Found{Gone: []string{"/f"}}
	finds := []reseal.Found{again, gone}
	err := allAgain(func() (reseal.Found, error) {
		f := finds[0]
		finds = finds[1:]
		return f, nil
	}, func() error { return nil })
	if lost, ok := errors.AsType[*LostError](err); !ok || lost.Gone[0] != "/f" {
		t.Errorf("what is gone: %v", err)
	}
}
