package dht

import (
	"testing"
	"testing/synctest"
	"time"
)

// Who looks for more peers waits as long as new ones come, and not for those that do not
// answer.
func TestLookForPeersEnds(t *testing.T) {
	const nobodyNew = 2 * time.Second
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		number := func() int { return int(min(time.Since(begin), 3*time.Second) / time.Second) } // one comes each second
		untilNobodyNew(t.Context(), make(chan error), number, nobodyNew)
		if took := time.Since(begin); took < 3*time.Second+nobodyNew-newEvery || took > 3*time.Second+2*nobodyNew {
			t.Errorf("it ends after %v", took)
		}
		over := make(chan error)
		time.AfterFunc(time.Second, func() { close(over) })
		begin = time.Now()
		untilNobodyNew(t.Context(), over, number, nobodyNew)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("when it is over, it ends after %v", took)
		}
	})
}
