package daemon

import (
	"errors"
	"testing"

	"skep/cache/reseal"
)

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
