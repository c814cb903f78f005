package words

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/tyler-smith/go-bip39"

	"skep/chunker/secret"
)

// The numbers of words that a phrase can have: 12, 15, 18, 21 or 24.
const (
	DefaultCount = 12
	MaxCount     = 24
	countStep    = 3
)

// bytesPerStep is how much entropy three words carry beside their checksum.
const bytesPerStep = 4

// recoveryContext is the purpose of the key that the words give.
const recoveryContext = "skep recovery words v1"

// Entropy is the random number behind recovery words, of 16 to 32 bytes. The
// zero value stands for no words. It is comparable.
type Entropy struct {
	bytes [32]byte
	size  int
}

// String hides the entropy.
func (Entropy) String() string { return "words.Entropy(…)" }

// GoString hides the entropy from %#v.
func (e Entropy) GoString() string { return e.String() }

// Format hides the entropy from every formatting verb.
func (e Entropy) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(e.String())) }

// MarshalText hides the entropy from JSON and from logs that are made of it.
func (e Entropy) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// New returns random entropy for DefaultCount words.
func New() Entropy {
	e, err := NewCount(DefaultCount)
	if err != nil {
		panic("BUG: words: " + err.Error()) // DefaultCount is a valid count
	}
	return e
}

// NewCount returns random entropy for a number of words. It fails with a
// *CountError for a number that no phrase has.
func NewCount(count int) (Entropy, error) {
	if !validCount(count) {
		return Entropy{}, &CountError{Count: count}
	}
	e := Entropy{size: count / countStep * bytesPerStep}
	_, _ = rand.Read(e.bytes[:e.size]) // crypto/rand.Read never fails; it ends the program instead
	return e, nil
}

// FromBytes returns the entropy of these bytes, of which there must be 16, 20,
// 24, 28 or 32.
func FromBytes(b []byte) (Entropy, error) {
	count := len(b) / bytesPerStep * countStep
	if len(b)%bytesPerStep != 0 || !validCount(count) {
		return Entropy{}, fmt.Errorf("recovery words cannot stand for %d bytes", len(b))
	}
	e := Entropy{size: len(b)}
	copy(e.bytes[:], b)
	return e, nil
}

func validCount(n int) bool {
	return n >= DefaultCount && n <= MaxCount && n%countStep == 0
}

// IsZero reports whether e stands for no words.
func (e Entropy) IsZero() bool { return e.size == 0 }

// Key is the recovery key that the words give.
func (e Entropy) Key() secret.Key {
	if e.IsZero() {
		panic("BUG: words: key of no words")
	}
	// The entropy is uniform, so HKDF takes it as it is; its length is a part,
	// so that a short one padded with zeros gives another key than a long one.
	return secret.Derive(secret.Key(e.bytes), recoveryContext, []byte{byte(e.size)})
}

// Words are the recovery words, in order.
func (e Entropy) Words() []string { return strings.Fields(e.Phrase()) }

// Phrase is the recovery words with one space between each two.
func (e Entropy) Phrase() string {
	if e.IsZero() {
		return ""
	}
	p, err := bip39.NewMnemonic(e.bytes[:e.size])
	if err != nil {
		panic("BUG: words: " + err.Error()) // only for sizes that no Entropy has
	}
	return p
}

// ErrChecksum says that all words are in the list, but that these words in
// this order are not a phrase: a word was replaced by another one, or two
// changed places.
var ErrChecksum = errors.New("the words do not belong together: one is wrong, or they are out of order")

// CountError says that a phrase has a number of words that no phrase has.
type CountError struct {
	Count int
}

// Error names the number found and those that are possible.
func (e *CountError) Error() string {
	if e.Count == 0 {
		return "no recovery words given"
	}
	return fmt.Sprintf("%d recovery words given, it must be 12, 15, 18, 21 or 24", e.Count)
}

// WordError says that a word is not in the list. As it quotes what was typed,
// it is meant for the person who typed it and for no log.
type WordError struct {
	Position int      // of the word, counted from 1
	Word     string   // as it was given, in lower case
	Near     []string // words of the list that may have been meant, nearest first
}

// Error names the word by its position and suggests others.
func (e *WordError) Error() string {
	s := fmt.Sprintf("word %d, %s, is not in the list", e.Position, quote(e.Word))
	if len(e.Near) == 0 {
		return s
	}
	near := make([]string, len(e.Near))
	for i, w := range e.Near {
		near[i] = quote(w)
	}
	last := near[len(near)-1]
	if len(near) > 1 {
		last = strings.Join(near[:len(near)-1], ", ") + " or " + last
	}
	return s + "; did you mean " + last + "?"
}

// quote bounds what an error repeats of a word that is none.
func quote(w string) string {
	const most = 24
	if r := []rune(w); len(r) > most {
		return fmt.Sprintf("%q…", string(r[:most]))
	}
	return fmt.Sprintf("%q", w)
}

// isBetween reports whether a character stands between words: white space, also what has
// no width, as editors put it at the beginning of a file, and marks of a sentence.
func isBetween(r rune) bool {
	return unicode.IsSpace(r) || r == '\ufeff' || r == '\u200b' || strings.ContainsRune(",.\"“”„", r)
}

// isNumber reports whether a field is no word but the number of the next one.
func isNumber(field string) bool {
	digits := strings.TrimRight(field, ".):")
	return digits != "" && strings.Trim(digits, "0123456789") == ""
}

// Parse reads recovery words, in any case, with any white space, commas, points or
// quotes around and between them, and with numbers before them, as they are shown. It
// fails with a *WordError for the first word that is not in the list, a *CountError, or
// ErrChecksum.
func Parse(phrase string) (Entropy, error) {
	given := slices.DeleteFunc(strings.FieldsFunc(strings.ToLower(phrase), isBetween), isNumber)
	if len(given) == 0 || len(given) > MaxCount {
		return Entropy{}, &CountError{Count: len(given)}
	}
	for i, w := range given {
		if _, ok := bip39.GetWordIndex(w); !ok {
			return Entropy{}, &WordError{Position: i + 1, Word: w, Near: near(w)}
		}
	}
	if !validCount(len(given)) {
		return Entropy{}, &CountError{Count: len(given)}
	}
	b, err := bip39.EntropyFromMnemonic(strings.Join(given, " "))
	if err != nil {
		return Entropy{}, ErrChecksum // count and words are right, so nothing else is left
	}
	return FromBytes(b)
}
