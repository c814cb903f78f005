package journal

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"skep/test/vectors"
)

var goldenRecords = []string{"first", "", "a record of more than one word", string(bytes.Repeat([]byte{0xa5}, 100))}

// TestVector pins the beginning of a segment, and reads it back as the whole
// file that it was.
func TestVector(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range goldenRecords {
		if _, err := j.Append([]byte(r), i == 1); err != nil {
			t.Fatal(err)
		}
		if i == 0 { // the records after it say that it is on the disk
			if err := j.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "0000000000000001.journal"))
	if err != nil {
		t.Fatal(err)
	}
	size := headerSize
	for _, r := range goldenRecords {
		size += occupied(len(r))
	}
	if len(b) != segmentSize || !bytes.Equal(b[size:], make([]byte, segmentSize-size)) {
		t.Errorf("a segment of %d bytes, not zero behind its records", len(b))
	}
	vectors.Check(t, "segment", "the first segment of a journal with four records, up to the zeros", b[:size])

	var got []string
	collect := func(seq uint64, p []byte) error {
		if got = append(got, string(p)); seq != uint64(len(got)) {
			t.Errorf("record %d comes as number %d", len(got), seq)
		}
		return nil
	}
	old := vectors.Load(t, "segment", "", func() []byte { return nil })
	end, next, err := Scan(append(old, make([]byte, 1000)...), collect)
	if err != nil || end != size || next != 5 || !reflect.DeepEqual(got, goldenRecords) {
		t.Errorf("%q, ends at %d before record %d, %v", got, end, next, err)
	}
}
