package tree

import "testing"

func TestInoSet(t *testing.T) {
	in := []Ino{1, 2, 63, 64, 65, 1<<63 + 7, 1<<64 - 1}
	s := inoSet{}
	for _, ino := range in {
		if s.has(ino) {
			t.Errorf("%d is there before it was added", ino)
		}
		s.add(ino)
	}
	for _, ino := range in {
		if !s.has(ino) {
			t.Errorf("%d is not there", ino)
		}
	}
	for _, ino := range []Ino{0, 3, 62, 66, 127, 1<<63 + 6, 1<<63 + 8, 1<<64 - 2} {
		if s.has(ino) {
			t.Errorf("%d was not added", ino)
		}
	}
}
