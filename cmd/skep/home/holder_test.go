package home

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// Who has a home locked is named, and while one is being made, that is said of it.
func TestHolder(t *testing.T) {
	d := Dir(t.TempDir())
	if got := d.Holder(); got != "" {
		t.Errorf("nobody has it, and it is told to be %s", got)
	}
	if _, err := d.Settings(); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	release, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Holder(); got != "" && !strings.HasPrefix(got, fmt.Sprintf("process %d (", os.Getpid())) {
		t.Errorf("it is told to be %s", got) // not everywhere does Linux tell
	}
	if _, err := d.Settings(); !errors.Is(err, ErrBeingMade) {
		t.Errorf("while it is being made: %v", err)
	}
	release()
	if _, err := d.Settings(); !errors.Is(err, ErrNone) {
		t.Errorf("when nobody makes it any more: %v", err)
	}
}
