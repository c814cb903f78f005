package vectors

import (
	"bufio"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "make the vectors that testdata lacks")

// Check compares got with the vector of this name, which says what it is in
// about.
func Check(t testing.TB, name, about string, got []byte) {
	t.Helper()
	want, err := load(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && *update:
		if err := create(name, about, got); err != nil {
			t.Fatal(err)
		}
	case err != nil:
		t.Fatalf("vector %s: %v", name, err)
	case string(want) != string(got):
		t.Errorf("%s: the encoding has changed\n got %x\nwant %x", name, clip(got), clip(want))
	}
}

// Load returns the vector of this name. Where it is missing and may be made,
// it is what made returns: for encodings that differ each time.
func Load(t testing.TB, name, about string, made func() []byte) []byte {
	t.Helper()
	b, err := load(name)
	if errors.Is(err, fs.ErrNotExist) && *update {
		b = made()
		err = create(name, about, b)
	}
	if err != nil {
		t.Fatalf("vector %s: %v", name, err)
	}
	return b
}

func path(name string) string { return filepath.Join("testdata", name+".hex") }

func load(name string) ([]byte, error) {
	f, err := os.Open(path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var digits strings.Builder
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if s := strings.TrimSpace(lines.Text()); !strings.HasPrefix(s, "#") {
			digits.WriteString(s)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return hex.DecodeString(digits.String())
}

// lineBytes is how many bytes a line of a vector has.
const lineBytes = 32

func create(name, about string, b []byte) error {
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		return err
	}
	var out strings.Builder
	fmt.Fprintf(&out, "# %s\n", about)
	for len(b) > 0 {
		n := min(lineBytes, len(b))
		fmt.Fprintf(&out, "%x\n", b[:n])
		b = b[n:]
	}
	f, err := os.OpenFile(path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(out.String())
	return errors.Join(err, f.Close())
}

// clip keeps messages short.
func clip(b []byte) []byte { return b[:min(len(b), 512)] }
