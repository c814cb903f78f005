package backing

import (
	"reflect"
	"testing"

	"skep/test/vectors"
)

func TestRangesVector(t *testing.T) {
	var s Ranges
	s.Add(0, 1)
	s.Add(100, 1<<20)
	s.Add(1<<40, 1<<40+5)
	b := new(Ranges).Append(s.Append(nil))
	vectors.Check(t, "ranges", "three ranges: 0+1, 100+1048476, 2⁴⁰+5; then the empty set", b)
	got, rest, err := DecodeRanges(b)
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%v, %v", got, err)
	}
	if got, rest, err = DecodeRanges(rest); err != nil || !got.Empty() || len(rest) != 0 {
		t.Errorf("%v, %d bytes left, %v", got, len(rest), err)
	}
}
