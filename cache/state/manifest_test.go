package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/journal"
)

// manifestOf is a manifest of so many records of some lengths.
func manifestOf(t *testing.T, lengths ...int) (b []byte, ends []int) {
	t.Helper()
	var buf bytes.Buffer
	w := journal.NewWriter(&buf)
	for i, n := range lengths {
		r, err := w.Next()
		if err == nil {
			_, err = r.Write(bytes.Repeat([]byte{byte(i + 1)}, n))
		}
		if err = errors.Join(err, w.Flush()); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, buf.Len())
	}
	return buf.Bytes(), ends
}

// What ends close to the end of a block, with or without room for a header, is whole.
func TestCheckManifestAtBlockEnds(t *testing.T) {
	for less := range 32 {
		whole, _ := manifestOf(t, logBlock-less, 10, 2*logBlock-less, 10)
		if n, err := checkManifest(bytes.NewReader(whole)); n != int64(len(whole)) || err != nil {
			t.Errorf("%d bytes less than a block: %d, %v", less, n, err)
		}
		if _, err := checkManifest(bytes.NewReader(zeroed(whole, 100, 1))); err == nil {
			t.Errorf("%d bytes less than a block: damage is not found", less)
		}
	}
}

// Damage is found in each record but the last, which may be torn anywhere.
func TestCheckManifest(t *testing.T) {
	whole, ends := manifestOf(t, 100, 20, 70_000, 5, 32<<10, 3, 40_000)
	if n, err := checkManifest(bytes.NewReader(whole)); n != int64(len(whole)) || err != nil {
		t.Fatalf("whole: %d, %v", n, err)
	}
	last := ends[len(ends)-2]
	for at := 0; at < len(whole); at += 1501 {
		for _, n := range []int{1, 512, 4096} {
			b := bytes.Clone(whole)
			for i := range b[at:min(at+n, len(b))] {
				b[at+i] ^= 0xff
			}
			within := at < last && at+n > last // the end of the last but one, too
			if _, err := checkManifest(bytes.NewReader(b)); !within && errors.Is(err, errManifest) != (at < last) {
				t.Errorf("%d bytes at %d, the last record begins at %d: %v", n, at, last, err)
			}
		}
		if at >= last {
			zeros := append(bytes.Clone(whole[:at]), make([]byte, len(whole)-at+8192)...)
			for _, torn := range [][]byte{whole[:at], zeros} {
				if n, err := checkManifest(bytes.NewReader(torn)); n != int64(last) || err != nil {
					t.Errorf("torn at %d: %d, not %d, %v", at, n, last, err)
				}
			}
		}
	}
}

// manifestIn is the manifest of an index and its content.
func manifestIn(t *testing.T, dir string) (name string, b []byte) {
	t.Helper()
	names, _ := filepath.Glob(filepath.Join(dir, "index", "MANIFEST-*"))
	if len(names) != 1 {
		t.Fatalf("manifests: %q", names)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	return names[0], b
}

// An index whose list of tables is damaged is made anew; one whose list ends with a
// record that was torn is not.
func TestDamagedManifest(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenWith(dir, Options{OverlaySize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		overlayed(t, s, fmt.Sprint(i))
		cutInTheEnd(t, s).Release()
	}
	want := dump(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name, manifest := manifestIn(t, dir)
	name = filepath.Base(name)
	for _, c := range []struct {
		what  string
		b     []byte
		whole bool
	}{
		{"zeros in its midst", zeroed(manifest, len(manifest)/2, 100), false},
		{"zeros at its beginning", zeroed(manifest, 0, 10), false},
		{"a torn record", append(bytes.Clone(manifest), manifest[:20]...), true},
		{"zeros behind it", append(bytes.Clone(manifest), make([]byte, 5000)...), true},
	} {
		to := copyOf(t, dir)
		if err := os.WriteFile(filepath.Join(to, "index", name), c.b, 0o600); err != nil {
			t.Fatal(err)
		}
		if whole := indexed(to) == s.inDB; whole != c.whole {
			t.Errorf("%s: the index counts as whole: %v", c.what, whole)
		}
		again := open(t, to)
		if got := dump(t, again); got != want {
			t.Errorf("%s: it has %d bytes of rows, not %d", c.what, len(got), len(want))
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
}

func zeroed(b []byte, at, n int) []byte {
	return append(append(bytes.Clone(b[:at]), strings.Repeat("\x00", n)...), b[at+n:]...)
}

// The last record of a manifest that was flushed, and counted on since, is missed where it
// decays: what it tells of is in no log any more.
func TestDecayedEndOfTheManifest(t *testing.T) {
	for _, inLog := range []bool{false, true} { // how the last table came to be
		dir := t.TempDir()
		opt := Options{OverlaySize: 64 << 10}
		s, err := OpenWith(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, "a", "1")
		if inLog {
			for i := range 20 {
				put(t, s, fmt.Sprintf("b-%02d", i), strings.Repeat("x", 3000))
			}
			cutInTheEnd(t, s).Release() // the log is all but full
			put(t, s, "b-20", strings.Repeat("x", 30_000))
		} else {
			overlayed(t, s, "b")
		}
		s.flushes.Wait()
		cutInTheEnd(t, s).Release()
		first, err := s.Rotate(0)
		if err == nil {
			err = s.Forget(first)
		}
		if err != nil {
			t.Fatal(err)
		}
		for s.db.files.rotating() {
			runtime.Gosched()
		}
		to := copyOf(t, dir)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		name, manifest := manifestIn(t, to)
		manifest[len(manifest)-5] ^= 0xff
		if err := os.WriteFile(name, manifest, 0o600); err != nil {
			t.Fatal(err)
		}
		if n := indexed(to); n > 0 {
			t.Errorf("in the log: %v: the index counts as whole up to %d", inLog, n)
		}
		again, err := OpenWith(to, opt)
		if err != nil {
			t.Fatal(err)
		}
		if !again.Rebuilt() {
			t.Errorf("in the log: %v: nothing counts as lost", inLog)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A run keeps to one manifest, however much it writes there: leveldb begins another one with
// numbers of before, and would give them again when the process is killed.
func TestOneManifestARun(t *testing.T) {
	s, _, dir := onFaulty(t)
	manifests := func() string {
		names, _ := filepath.Glob(filepath.Join(dir, "index", "MANIFEST*"))
		return fmt.Sprint(names)
	}
	first := manifests()
	for i := range 8 { // more than 64 MiB: it has the first key and the last one of each table
		put(t, s, fmt.Sprint(i, strings.Repeat("x", 8<<20)), "")
		cutInTheEnd(t, s).Release()
	}
	if got := manifests(); got != first {
		t.Errorf("it has %s, after %s", got, first)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
