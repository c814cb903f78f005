package daemon

import (
	"errors"
	"testing"
)

// Who gives more addresses to join by is not told how a try ended that did not know
// them, and waits for the next one.
func TestTryThatDidNotKnowTheAddress(t *testing.T) {
	var f firstJoin
	f.expect()
	try := f.begin()
	f.expect() // more addresses, while it is under way
	f.end(try, errSilent)
	if ended, err := f.outcome(); ended {
		t.Errorf("the first try has ended it: %v", err)
	}
	f.end(f.begin(), nil)
	if ended, err := f.outcome(); !ended || err != nil {
		t.Errorf("the second try ended: %v, %v", ended, err)
	}
	f.end(f.begin(), errSilent) // one that nobody expects
	if ended, err := f.outcome(); !ended || !errors.Is(err, errSilent) {
		t.Errorf("the third try ended: %v, %v", ended, err)
	}
}
