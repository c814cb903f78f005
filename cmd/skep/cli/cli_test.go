package cli

import (
	"errors"
	"testing"
)

// What is told is on one line, and other peers, whose words may be in it, cannot steer
// the terminal.
func TestSentence(t *testing.T) {
	for in, want := range map[string]string{
		"a: b":                           "a: b",
		"one\n  two\n":                   "one; two",
		"unknown; did you mean this?\nx": "unknown; did you mean this? x",
		"peer: \x1b[2J\x1b]0;gone\a\r":   "peer: [2J]0;gone",
		"größer\tals – \u009bm":          "größer als – m",
	} {
		if got := sentence(errors.New(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
