package words

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tyler-smith/go-bip39/wordlists"
)

// maxNear is how many words are suggested.
const maxNear = 3

// longest is how many bytes something has at most that may stand for a word.
const longest = 12

// leastPrefix is how many letters abbreviate a word, if few words begin with them.
const leastPrefix = 3

// near returns the words of the list that w may stand for, nearest first: those that
// it abbreviates, else those at the smallest edit distance.
func near(w string) []string {
	if len(w) > longest {
		return nil
	}
	if long := longer(w); len(w) >= leastPrefix && len(long) > 0 && len(long) <= maxNear {
		return long
	}
	type candidate struct {
		word         string
		distance     int
		commonPrefix int
	}
	var found []candidate
	best := maxDistance(w)
	for _, word := range wordlists.English {
		d := distance(w, word)
		if d > best {
			continue
		}
		best = d
		found = append(found, candidate{word, d, commonPrefix(w, word)})
	}
	found = slices.DeleteFunc(found, func(c candidate) bool { return c.distance > best })
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(b.commonPrefix, a.commonPrefix) })
	var out []string
	for _, c := range found[:min(maxNear, len(found))] {
		out = append(out, c.word)
	}
	return out
}

// longer returns the words of the list that begin with w.
func longer(w string) (out []string) {
	for _, word := range wordlists.English {
		if strings.HasPrefix(word, w) {
			out = append(out, word)
		}
	}
	return out
}

// maxDistance is how far a suggestion may be: two slips, but only one in a
// word so short that two would make another word of it.
func maxDistance(w string) int {
	if len(w) <= 3 {
		return 1
	}
	return 2
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// distance is how many slips turn a into b: a letter added, left out or
// replaced, or two neighbours exchanged (optimal string alignment).
func distance(a, b string) int {
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(last[j]+1, row[j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
