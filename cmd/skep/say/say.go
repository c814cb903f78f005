package say

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// Count is a number of things, of which one is called so: "1 pack", "2 packs", "3
// copies".
func Count[N int | int64](n N, one string) string {
	return fmt.Sprintf("%d %s", n, If(n, one, plural(one)))
}

func plural(one string) string {
	if stem, ok := strings.CutSuffix(one, "y"); ok {
		return stem + "ies"
	}
	return one + "s"
}

// If is a word that depends on a number: one for 1, many for any other.
func If[N int | int64](n N, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// Paths names some paths, and how many there are beside them.
func Paths(all []string) string {
	const most = 10
	if len(all) <= most {
		return fmt.Sprintf("%q", all)
	}
	return fmt.Sprintf("%q and %d more", all[:most], len(all)-most)
}

// Times is how often something happened.
func Times(n int) string { return If(n, "once", fmt.Sprintf("%d times", n)) }

// About is how long something takes at most, in whole seconds or minutes.
func About(d time.Duration) string {
	if d < time.Minute {
		return Count(int((d+time.Second-1)/time.Second), "second")
	}
	return Count(int((d+time.Minute-1)/time.Minute), "minute")
}

// Path is a path as a terminal may show it: quoted where it has control characters,
// which could do anything to the terminal, or is no text at all.
func Path(p string) string {
	plain := utf8.ValidString(p) && strings.IndexFunc(p, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
	if plain {
		return p
	}
	return strconv.Quote(p)
}

// Bytes is a size.
func Bytes(n int64) string { return humanize.IBytes(uint64(max(0, n))) }
