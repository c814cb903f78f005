package backing

import (
	"encoding/binary"
	"errors"
	"slices"
	"sort"
)

// Range is the bytes from From on, below To.
type Range struct{ From, To int64 }

// Ranges is a set of byte offsets, kept as sorted ranges that neither overlap
// nor touch. The zero value is the empty set. It is not safe for concurrent
// use.
type Ranges struct{ r []Range }

// All is every offset a file can have.
var All = Range{0, 1<<63 - 1}

// Empty reports whether the set is empty.
func (s *Ranges) Empty() bool { return len(s.r) == 0 }

// List returns the ranges of the set. The caller must not change them.
func (s *Ranges) List() []Range { return s.r }

// Clear empties the set.
func (s *Ranges) Clear() { s.r = nil }

// Clone returns a copy.
func (s *Ranges) Clone() Ranges { return Ranges{slices.Clone(s.r)} }

// Bytes is the number of offsets in the set.
func (s *Ranges) Bytes() (n int64) {
	for _, r := range s.r {
		n += r.To - r.From
	}
	return n
}

// Add puts [from, to) into the set.
func (s *Ranges) Add(from, to int64) {
	if from >= to {
		return
	}
	i := sort.Search(len(s.r), func(i int) bool { return s.r[i].To >= from })
	j := i
	for j < len(s.r) && s.r[j].From <= to {
		from, to = min(from, s.r[j].From), max(to, s.r[j].To)
		j++
	}
	s.r = slices.Replace(s.r, i, j, Range{from, to})
}

// Remove takes [from, to) out of the set.
func (s *Ranges) Remove(from, to int64) {
	if from >= to {
		return
	}
	i := sort.Search(len(s.r), func(i int) bool { return s.r[i].To > from })
	j := i
	var keep []Range
	for j < len(s.r) && s.r[j].From < to {
		if s.r[j].From < from {
			keep = append(keep, Range{s.r[j].From, from})
		}
		if s.r[j].To > to {
			keep = append(keep, Range{to, s.r[j].To})
		}
		j++
	}
	if i < j {
		s.r = slices.Replace(s.r, i, j, keep...)
	}
}

// Missing returns the parts of [from, to) that are not in the set.
func (s *Ranges) Missing(from, to int64) []Range {
	var out []Range
	i := sort.Search(len(s.r), func(i int) bool { return s.r[i].To > from })
	for ; from < to && i < len(s.r) && s.r[i].From < to; i++ {
		if s.r[i].From > from {
			out = append(out, Range{from, s.r[i].From})
		}
		from = s.r[i].To
	}
	if from < to {
		out = append(out, Range{from, to})
	}
	return out
}

// Within returns the parts of [from, to) that are in the set.
func (s *Ranges) Within(from, to int64) []Range {
	var out []Range
	i := sort.Search(len(s.r), func(i int) bool { return s.r[i].To > from })
	for ; i < len(s.r) && s.r[i].From < to; i++ {
		out = append(out, Range{max(from, s.r[i].From), min(to, s.r[i].To)})
	}
	return out
}

// Contains reports whether all of [from, to) is in the set.
func (s *Ranges) Contains(from, to int64) bool {
	if from >= to {
		return true
	}
	i := sort.Search(len(s.r), func(i int) bool { return s.r[i].To > from })
	return i < len(s.r) && s.r[i].From <= from && s.r[i].To >= to
}

// Union adds all of o.
func (s *Ranges) Union(o Ranges) {
	for _, r := range o.r {
		s.Add(r.From, r.To)
	}
}

// ErrFormat says that bytes are not an encoded set.
var ErrFormat = errors.New("malformed ranges")

// Append writes the set: the count, then for each range the gap before it and
// its length, as varints.
func (s *Ranges) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.r)))
	at := int64(0)
	for _, r := range s.r {
		b = binary.AppendUvarint(b, uint64(r.From-at))
		b = binary.AppendUvarint(b, uint64(r.To-r.From))
		at = r.To
	}
	return b
}

// DecodeRanges reads what Append wrote and returns the rest.
func DecodeRanges(b []byte) (Ranges, []byte, error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)) {
		return Ranges{}, nil, ErrFormat
	}
	b = b[k:]
	var s Ranges
	at := uint64(0)
	for range n {
		gap, k := binary.Uvarint(b)
		if k <= 0 {
			return Ranges{}, nil, ErrFormat
		}
		b = b[k:]
		size, k := binary.Uvarint(b)
		if k <= 0 || size == 0 || gap > 1<<62 || size > 1<<62 || at+gap+size >= 1<<63 || (gap == 0 && len(s.r) > 0) {
			return Ranges{}, nil, ErrFormat
		}
		b = b[k:]
		s.r = append(s.r, Range{int64(at + gap), int64(at + gap + size)})
		at += gap + size
	}
	return s, b, nil
}
