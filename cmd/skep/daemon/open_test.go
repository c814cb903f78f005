package daemon

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"skep/cmd/skep/home"
)

// Who only looks whether a home is locked keeps no daemon from opening it; another daemon
// does.
func TestLockedForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := home.Dir(t.TempDir())
		release, err := h.Lock()
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(lockPatience/2, release)
		release, err = lock(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if _, err := lock(t.Context(), h); !errors.Is(err, home.ErrInUse) {
			t.Errorf("locked twice: %v", err)
		}
	})
}
