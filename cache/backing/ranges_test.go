package backing

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// Ranges behaves as a set of offsets.
func TestRangesIsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Ranges
		var model [64]bool
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			from := rapid.Int64Range(0, 63).Draw(t, "from")
			to := rapid.Int64Range(0, 64).Draw(t, "to")
			add := rapid.Bool().Draw(t, "add")
			if add {
				s.Add(from, to)
			} else {
				s.Remove(from, to)
			}
			for i := from; i < to; i++ {
				model[i] = add
			}
			var n int64
			for i, in := range model {
				if s.Contains(int64(i), int64(i)+1) != in {
					t.Fatalf("offset %d: %v", i, s.List())
				}
				if in {
					n++
				}
			}
			if s.Bytes() != n {
				t.Fatalf("%d bytes, want %d", s.Bytes(), n)
			}
			last := int64(-1)
			for _, r := range s.List() {
				if r.From <= last || r.From >= r.To {
					t.Fatalf("not in order: %v", s.List())
				}
				last = r.To
			}
			a, b := rapid.Int64Range(0, 63).Draw(t, "a"), rapid.Int64Range(0, 64).Draw(t, "b")
			var in, out Ranges
			for _, r := range s.Within(a, b) {
				in.Add(r.From, r.To)
			}
			for _, r := range s.Missing(a, b) {
				out.Add(r.From, r.To)
			}
			for i := range model {
				i := int64(i)
				inside := i >= a && i < b
				if in.Contains(i, i+1) != (inside && model[i]) || out.Contains(i, i+1) != (inside && !model[i]) {
					t.Fatalf("[%d,%d) of %v: within %v, missing %v", a, b, s.List(), in, out)
				}
			}
			enc := s.Append([]byte{})
			back, rest, err := DecodeRanges(enc)
			if err != nil || len(rest) != 0 || !bytes.Equal(back.Append([]byte{}), enc) {
				t.Fatalf("encoding: %v", err)
			}
		}
	})
}

func FuzzDecodeRanges(f *testing.F) {
	s := Ranges{[]Range{{0, 4}, {9, 1 << 40}}}
	f.Add(s.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, rest, err := DecodeRanges(b)
		if err != nil {
			return
		}
		var again Ranges
		for _, r := range s.List() {
			again.Add(r.From, r.To)
		}
		if len(again.List()) != len(s.List()) || len(rest) > len(b) {
			t.Fatalf("not a set: %v", s.List())
		}
	})
}
