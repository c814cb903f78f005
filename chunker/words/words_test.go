package words

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"skep/chunker/secret"
)

// vector pins words and key for an entropy. The phrases are those of the
// reference vectors of BIP-39.
type vector struct {
	Entropy string `json:"entropy"`
	Phrase  string `json:"phrase"`
	Key     string `json:"key"`
}

func vectors(t *testing.T) []vector {
	t.Helper()
	b, err := os.ReadFile("testdata/words.json")
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	if err := json.Unmarshal(b, &vs); err != nil {
		t.Fatal(err)
	}
	return vs
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		raw, err := hex.DecodeString(v.Entropy)
		if err != nil {
			t.Fatal(err)
		}
		e, err := FromBytes(raw)
		if err != nil {
			t.Fatal(err)
		}
		if e.Phrase() != v.Phrase {
			t.Errorf("%s: phrase %q, want %q", v.Entropy, e.Phrase(), v.Phrase)
		}
		key := e.Key()
		if got := hex.EncodeToString(key[:]); got != v.Key {
			t.Errorf("%s: key %s, want %s", v.Entropy, got, v.Key)
		}
		back, err := Parse(v.Phrase)
		if err != nil || back != e {
			t.Errorf("%q: does not parse back: %v", v.Phrase, err)
		}
	}
}

const apple = "legal winner thank year wave sausage worth useful legal winner thank yellow"

func TestParseTolerates(t *testing.T) {
	want, err := Parse(apple)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"  " + apple + "\n",
		strings.ToUpper(apple),
		strings.ReplaceAll(apple, " ", "\n"),
		strings.ReplaceAll(apple, " ", "\t \u00a0"),
		"\r\n" + strings.ReplaceAll(apple, " ", "\r\n"),
		strings.ReplaceAll(apple, " ", ", "),
		numbered("  %2d  %s\n", apple), // as they are shown
		numbered("%d. %s ", apple),
		"\ufeff" + apple + "\r\n", // as some editors write a file
		"\u200b" + apple,
		`"` + apple + `".`,
		"„" + apple + "“",
	} {
		if got, err := Parse(s); err != nil || got != want {
			t.Errorf("Parse(%q): %v", s, err)
		}
	}
}

// numbered is a phrase with the number of each word before it.
func numbered(format, phrase string) (out string) {
	for i, w := range strings.Fields(phrase) {
		out += fmt.Sprintf(format, i+1, w)
	}
	return out
}

func TestParseErrors(t *testing.T) {
	replace := func(i int, w string) string {
		f := strings.Fields(apple)
		f[i-1] = w
		return strings.Join(f, " ")
	}
	for _, c := range []struct {
		name, phrase, want string
	}{
		{"none", " \n", "no recovery words given"},
		{"eleven", strings.TrimSuffix(apple, " yellow"), "11 recovery words given, it must be 12, 15, 18, 21 or 24"},
		{"far too many", strings.Repeat("xyzzy ", 500), "500 recovery words given, it must be 12, 15, 18, 21 or 24"},
		{"misspelt", replace(7, "aple"), `word 7, "aple", is not in the list; did you mean "apple", "able" or "maple"?`},
		{"exchanged letters", replace(1, "leagl"), `word 1, "leagl", is not in the list; did you mean "legal"?`},
		{"abbreviated", replace(6, "saus"), `word 6, "saus", is not in the list; did you mean "sausage"?`},
		{"abbreviated to three", replace(3, "isl"), `word 3, "isl", is not in the list; did you mean "island"?`},
		{"several", replace(2, "winer"), `word 2, "winer", is not in the list; did you mean "wine", "winner" or "winter"?`},
		{"nothing near", replace(3, "qqqqqq"), `word 3, "qqqqqq", is not in the list`},
		{"binary", "\x7fELF\x02", `word 1, "\x7felf\x02", is not in the list`},
		{"long", replace(3, strings.Repeat("ä", 1000)), `word 3, "` + strings.Repeat("ä", 24) + `"…, is not in the list`},
		{"another word of the list", replace(12, "zoo"), ErrChecksum.Error()},
		{"out of order", "winner legal" + strings.TrimPrefix(apple, "legal winner"), ErrChecksum.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.phrase)
			if err == nil {
				t.Fatal("no error")
			}
			if err.Error() != c.want {
				t.Errorf("got  %q\nwant %q", err, c.want)
			}
		})
	}
}

func TestErrorKinds(t *testing.T) {
	_, err := Parse("legal winner thank year wave sausage worth aple")
	var we *WordError
	if !errors.As(err, &we) || we.Position != 8 || we.Word != "aple" || !slices.Contains(we.Near, "apple") {
		t.Errorf("misspelt word in a short phrase: %v", err)
	}
	var ce *CountError
	if _, err := NewCount(13); !errors.As(err, &ce) || ce.Count != 13 {
		t.Errorf("NewCount(13): %v", err)
	}
	for _, n := range []int{0, 15, 17, 33, 36} {
		if _, err := FromBytes(make([]byte, n)); err == nil {
			t.Errorf("FromBytes of %d bytes: no error", n)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{16, 20, 24, 28, 32}).Draw(t, "size")
		e, err := FromBytes(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "entropy"))
		if err != nil {
			t.Fatal(err)
		}
		if got := len(e.Words()); got != size/4*3 {
			t.Fatalf("%d bytes give %d words", size, got)
		}
		back, err := Parse(e.Phrase())
		if err != nil || back != e {
			t.Fatalf("does not come back: %v", err)
		}
	})
}

// A slip in one word of a phrase is always found, and the word meant is among
// those suggested whenever the slip left only one word at that distance.
func TestOneSlipIsNamed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := mustBytes(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "entropy"))
		ws := e.Words()
		i := rapid.IntRange(0, len(ws)-1).Draw(t, "word")
		at := rapid.IntRange(0, len(ws[i])-1).Draw(t, "letter")
		ws[i] = ws[i][:at] + "#" + ws[i][at+1:]
		_, err := Parse(strings.Join(ws, " "))
		var we *WordError
		if !errors.As(err, &we) || we.Position != i+1 {
			t.Fatalf("%v", err)
		}
		for _, n := range we.Near {
			if distance(ws[i], n) != 1 {
				t.Fatalf("%q suggested for %q", n, ws[i])
			}
		}
		if len(we.Near) == 0 {
			t.Fatalf("nothing suggested for %q", ws[i])
		}
	})
}

func mustBytes(b []byte) Entropy {
	e, err := FromBytes(b)
	if err != nil {
		panic(err)
	}
	return e
}

func TestNewIsRandom(t *testing.T) {
	a, b := New(), New()
	if a == b || a.Key() == b.Key() || a.IsZero() || len(a.Words()) != DefaultCount {
		t.Error("two new ones are alike")
	}
	long, err := NewCount(MaxCount)
	if err != nil || len(long.Words()) != MaxCount {
		t.Errorf("24 words: %v", err)
	}
}

// Entropies of different length never give one key, even where the bytes are
// alike up to zeros.
func TestLengthIsPartOfTheKey(t *testing.T) {
	seen := map[secret.Key]int{}
	for _, n := range []int{16, 20, 24, 28, 32} {
		k := mustBytes(make([]byte, n)).Key()
		if m, ok := seen[k]; ok {
			t.Errorf("%d and %d zero bytes give one key", m, n)
		}
		seen[k] = n
	}
}

func TestNeverPrints(t *testing.T) {
	e := mustBytes([]byte("0123456789abcdef"))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%T"} {
		for _, v := range []any{e, &e, []Entropy{e}, struct{ E Entropy }{e}} {
			s := fmt.Sprintf(verb, v)
			if strings.Contains(s, "0123") || strings.Contains(strings.ToLower(s), "30313233") || strings.Contains(s, "48 49 50") {
				t.Errorf("%s prints the entropy: %s", verb, s)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(apple)
	f.Add("aple " + apple)
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		e, err := Parse(s)
		if err != nil {
			if !e.IsZero() {
				t.Fatal("error and entropy")
			}
			if len(err.Error()) > 400 {
				t.Fatalf("error of %d bytes", len(err.Error()))
			}
			return
		}
		if back, err := Parse(e.Phrase()); err != nil || back != e {
			t.Fatalf("%q does not come back: %v", s, err)
		}
	})
}
