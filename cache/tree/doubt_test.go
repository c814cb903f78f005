package tree

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAbsences(t *testing.T) {
	a := absences{{10, 20}, {30, 40}}
	if got := decodeAbsences(append(a.encode(), 1, 2, 3)); !slices.Equal(got, a) {
		t.Errorf("read back as %v", got)
	}
	for at, want := range map[int64]bool{5: false, 10: false, 11: true, 20: false, 25: false, 35: true, 40: false} {
		if got := a.include(unix.Timespec{Nsec: at}); got != want {
			t.Errorf("a change at %d is in %v: %v", at, a, got)
		}
	}
}
