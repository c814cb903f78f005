package harness

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"skep/chunker/keyring"
)

// Scanner finds any of many needles in large files in one pass.
type Scanner struct {
	first   []bool // by a hash of the first bytes of a needle
	needles map[uint64][]needle
}

type needle struct {
	bytes []byte
	what  string
}

const (
	leastNeedle = 8
	firstBits   = 22
)

// NewScanner returns a scanner without needles.
func NewScanner() *Scanner {
	return &Scanner{first: make([]bool, 1<<firstBits), needles: map[uint64][]needle{}}
}

func firstHash(v uint64) uint64 { return v * 0x9e3779b97f4a7c15 >> (64 - firstBits) }

// Add adds a needle of at least 8 bytes and what it is.
func (s *Scanner) Add(b []byte, what string) {
	if len(b) < leastNeedle {
		panic("BUG: needle too short: " + what)
	}
	v := binary.LittleEndian.Uint64(b)
	s.first[firstHash(v)] = true
	s.needles[v] = append(s.needles[v], needle{bytes.Clone(b), what})
}

// AddSecret adds a secret in the forms in which it could be printed.
func (s *Scanner) AddSecret(b []byte, what string) {
	s.Add(b, what)
	s.Add([]byte(hex.EncodeToString(b)), what+" in hexadecimal")
	s.Add([]byte(base64.StdEncoding.EncodeToString(b)[:4*(len(b)/3)]), what+" in base64")
	s.Add([]byte(base64.URLEncoding.EncodeToString(b)[:4*(len(b)/3)]), what+" in base64")
}

// Find tells which needles are in some bytes.
func (s *Scanner) Find(b []byte) []string {
	var found []string
	for i := 0; i+leastNeedle <= len(b); i++ {
		v := binary.LittleEndian.Uint64(b[i:])
		if !s.first[firstHash(v)] {
			continue
		}
		for _, n := range s.needles[v] {
			if bytes.HasPrefix(b[i:], n.bytes) {
				found = append(found, n.what)
			}
		}
	}
	return found
}

// Below tells which needles are in the files below a directory, or in their
// names.
func (s *Scanner) Below(t testing.TB, dir string) (found []string, size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var b []byte
		if e.Type().IsRegular() {
			if b, err = os.ReadFile(path); err != nil {
				return err
			}
			size += int64(len(b))
		}
		rel, _ := filepath.Rel(dir, path)
		for _, what := range append(s.Find(b), s.Find([]byte(rel))...) {
			found = append(found, what+", in "+path)
		}
		return nil
	})
	must(t, err)
	return found, size
}

// piece is how long the samples of contents are.
const piece = 64

// leastName is how long a single name must be to be told from chance, and from
// words of our own.
const leastName = 12

// AddTree adds the paths and single names of a tree that are long enough, and
// samples of the contents of all of its files: the middle, and a piece of every
// so many bytes.
func (s *Scanner) AddTree(t testing.TB, dir string) {
	t.Helper()
	const every = 4096
	names := map[string]bool{"settings.json": true, "control.sock": true} // a home has these itself
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if rel, _ := filepath.Rel(dir, path); len(rel) >= 16 {
			s.Add([]byte(rel), "path "+rel)
		}
		if name := e.Name(); len(name) >= leastName && !names[name] {
			names[name] = true
			s.Add([]byte(name), "name "+name)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if mid := len(b) / 2; mid > piece && mid%every != 0 {
			s.addPiece(b[mid:], path)
		}
		s.AddContent(b, every, path)
		return err
	})
	must(t, err)
}

// AddContent adds a piece of every so many bytes of a file's content. They are
// found wherever they are.
func (s *Scanner) AddContent(b []byte, every int, path string) {
	for at := 0; at+piece <= len(b); at += every {
		s.addPiece(b[at:], path)
	}
}

func (s *Scanner) addPiece(b []byte, path string) {
	if distinct(b[:piece]) {
		s.Add(b[:piece], "content of "+path)
	}
}

// distinct reports whether a sample is one of a kind rather than white space or
// zeros.
func distinct(b []byte) bool {
	seen := map[byte]bool{}
	for _, c := range b {
		seen[c] = true
	}
	return len(seen) >= 10
}

// AddDevice adds the secrets of a device: its keys, those of its drive, and the
// recovery words.
func (s *Scanner) AddDevice(t testing.TB, d *Device) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(d.Home, "keys"))
	must(t, err)
	keys, err := keyring.DecodeLocal(b, nil)
	must(t, err)
	s.AddSecret(keys.Device[:], "the device's secret")
	s.AddSecret(keys.Root[:], "the root secret")
	word, err := os.ReadFile(filepath.Join(d.Home, "keyring"))
	must(t, err)
	ring, err := keyring.OpenKeyring(keys.Root, [][]byte{word}, 0)
	must(t, err)
	for _, drive := range ring.Drives {
		s.AddSecret(drive.NameKey[:], "the drive's name key")
		for _, e := range drive.Epochs {
			s.AddSecret(e.Read[:], "the drive's read secret")
			s.AddSecret(e.Convergence[:], "the drive's convergence secret")
		}
	}
	s.AddWords(t, d.Words)
}

// AddWords adds any three recovery words in a row.
func (s *Scanner) AddWords(t testing.TB, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	words := bytes.Fields(b)
	for i := range len(words) - 2 {
		s.Add(bytes.Join(words[i:i+3], []byte(" ")), "recovery words")
	}
}
