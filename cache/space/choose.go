package space

import (
	"cmp"
	"slices"
	"time"
)

// Candidate is a file whose content could be let go of.
type Candidate struct {
	ID    uint64
	Bytes int64         // that come free
	Age   time.Duration // since it was used last
}

const (
	// roundTrip is what fetching anything costs, and bandwidth how fast the
	// rest comes: together they weigh small files against large ones.
	roundTrip = 100 * time.Millisecond
	bandwidth = 10 << 20
	// youngest is the age below which all are alike.
	youngest = time.Second
)

// worth is what a byte of room spent on a candidate saves: the time to fetch
// it, by how soon it is likely to be wanted. Of two files used at the same time
// the smaller is worth more a byte, for it costs a round trip just the same.
func (c Candidate) worth() float64 {
	n := float64(max(1, c.Bytes))
	cost := roundTrip.Seconds()/n + 1/float64(bandwidth)
	return cost / max(c.Age, youngest).Seconds()
}

// Choose picks the least useful candidates until they free need bytes, but no
// more than most of them. The least useful comes first.
func Choose(all []Candidate, need int64, most int) []Candidate {
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b Candidate) int {
		if c := cmp.Compare(a.worth(), b.worth()); c != 0 {
			return c
		}
		return cmp.Compare(a.ID, b.ID)
	})
	n := 0
	for n < len(sorted) && n < most && need > 0 {
		need -= sorted[n].Bytes
		n++
	}
	return sorted[:n]
}
