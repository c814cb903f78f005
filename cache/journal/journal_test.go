package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"skep/cache/disk"
)

func reopen(t *testing.T, dir string) (*Journal, []string) {
	t.Helper()
	var got []string
	next := uint64(0)
	j, err := Open(dir, Options{}, func(seq uint64, p []byte) error {
		if next != 0 && seq != next {
			t.Errorf("record %d follows %d", seq, next-1)
		}
		next = seq + 1
		got = append(got, string(p))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return j, got
}

func appendAll(t *testing.T, j *Journal, records ...string) {
	t.Helper()
	for _, r := range records {
		if _, err := j.Append([]byte(r), false); err != nil {
			t.Fatal(err)
		}
	}
}

// What was appended is there without Close or Sync: the process may end at any
// time.
func TestAppendSurvivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	j, _ := reopen(t, dir)
	appendAll(t, j, "a", "", "ccc")
	j2, got := reopen(t, dir)
	if fmt.Sprint(got) != "[a  ccc]" {
		t.Fatalf("got %q", got)
	}
	appendAll(t, j2, "d")
	if _, got = reopen(t, dir); fmt.Sprint(got) != "[a  ccc d]" {
		t.Fatalf("got %q", got)
	}
}

func TestSegmentsRotateAndDrop(t *testing.T) {
	dir := t.TempDir()
	j, _ := reopen(t, dir)
	big := string(bytes.Repeat([]byte{'x'}, 5<<20))
	appendAll(t, j, big, big, big, big, big, big, "end")
	if len(j.segments) < 3 {
		t.Fatalf("%d segments", len(j.segments))
	}
	first := j.segments[1].first
	if err := j.DropBefore(first - 1); err != nil || j.segments[0].first != 1 {
		t.Fatal("dropped a segment that holds a wanted record")
	}
	if err := j.DropBefore(first); err != nil {
		t.Fatal(err)
	}
	_, got := reopen(t, dir)
	if len(got) != 7-int(first-1) || got[len(got)-1] != "end" {
		t.Fatalf("%d records after the drop", len(got))
	}
}

// Only the tail can be torn: whatever bytes the last, unsynced records end up
// with, those before them are read and nothing else is.
func TestTornTail(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "journal")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		j, _ := reopen(t, dir)
		n := rapid.IntRange(1, 6).Draw(rt, "synced")
		for i := range n {
			appendAll(t, j, fmt.Sprint("synced ", i))
		}
		if err := j.Sync(); err != nil {
			rt.Fatal(err)
		}
		cut := j.offset
		m := rapid.IntRange(1, 4).Draw(rt, "loose")
		for i := range m {
			appendAll(t, j, fmt.Sprint("loose ", i))
		}
		path := j.segments[0].path
		b, _ := os.ReadFile(path)
		for range rapid.IntRange(1, 5).Draw(rt, "flips") {
			at := rapid.Int64Range(cut, j.offset-1).Draw(rt, "at")
			b[at] ^= byte(rapid.IntRange(1, 255).Draw(rt, "by"))
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			rt.Fatal(err)
		}
		j2, got := reopen(t, dir)
		if len(got) < n || len(got) > n+m {
			rt.Fatalf("%d records, %d were synced, %d loose", len(got), n, m)
		}
		for i, r := range got {
			want := fmt.Sprint("synced ", i)
			if i >= n {
				want = fmt.Sprint("loose ", i-n)
			}
			if r != want {
				rt.Fatalf("record %d is %q", i, r)
			}
		}
		appendAll(t, j2, "new")
		if _, again := reopen(t, dir); len(again) != len(got)+1 || again[len(got)] != "new" {
			rt.Fatalf("a torn record came back: %q", again)
		}
	})
}

// A record that was on the disk and is unreadable now is damage, not a tail.
func TestDamageIsRefused(t *testing.T) {
	dir := t.TempDir()
	j, _ := reopen(t, dir)
	appendAll(t, j, "one", "two")
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	appendAll(t, j, "three")
	path := j.segments[0].path
	b, _ := os.ReadFile(path)
	b[headerSize+recordSize] ^= 1 // in "one"
	_ = os.WriteFile(path, b, 0o600)
	if _, err := Open(dir, Options{}, func(uint64, []byte) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Fatalf("opened a damaged journal: %v", err)
	}
}

func TestMissingSegmentIsRefused(t *testing.T) {
	dir := t.TempDir()
	j, _ := reopen(t, dir)
	big := string(bytes.Repeat([]byte{'x'}, 9<<20))
	appendAll(t, j, big, big, big)
	_ = os.Remove(j.segments[1].path)
	if _, err := Open(dir, Options{}, func(uint64, []byte) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Fatalf("opened a journal with a hole: %v", err)
	}
	_ = os.WriteFile(filepath.Join(dir, "zz"+suffix), nil, 0o600)
	if _, err := Open(dir, Options{}, func(uint64, []byte) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Fatalf("opened a journal with a stray file: %v", err)
	}
}

// The power went while a segment was being made: it is as if it never was.
func TestUnbornSegment(t *testing.T) {
	dir := t.TempDir()
	j, _ := reopen(t, dir)
	appendAll(t, j, "a")
	_ = os.WriteFile(filepath.Join(dir, fmt.Sprintf("%016x%s", j.next, suffix)), make([]byte, 4096), 0o600)
	j, got := reopen(t, dir)
	if fmt.Sprint(got) != "[a]" {
		t.Fatalf("got %q", got)
	}
	appendAll(t, j, "b")
}

// Zeros where the header of the last segment was do not make it one that was not begun.
func TestLostHeaderIsDamage(t *testing.T) {
	for _, zeroed := range []int64{headerSize, 4 << 10, zeroStep} {
		dir := t.TempDir()
		j, _ := reopen(t, dir)
		appendAll(t, j, "a", string(bytes.Repeat([]byte{'x'}, zeroStep)))
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		path := j.segments[0].path
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt(make([]byte, zeroed), 0)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, Options{}, func(uint64, []byte) error { return nil }); !errors.Is(err, ErrDamaged) {
			t.Errorf("%d zeros at its beginning: opened, %v", zeroed, err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

// badHead is a disk that cannot read the beginning of a file.
type badHead struct{ disk.FS }

type badHeadFile struct{ disk.File }

func (d badHead) Open(name string, flags int) (disk.File, error) {
	f, err := d.FS.Open(name, flags)
	return badHeadFile{f}, err
}

func (badHeadFile) ReadAt([]byte, int64) (int, error) { return 0, unix.EIO }

// A segment of which the disk does not say whether it was begun stays where it is.
func TestUnreadableSegmentStays(t *testing.T) {
	dir := t.TempDir()
	j, _ := reopen(t, dir)
	appendAll(t, j, "a")
	if _, err := Open(dir, Options{Disk: badHead{disk.Local}}, func(uint64, []byte) error { return nil }); !errors.Is(err, unix.EIO) {
		t.Fatalf("opened what cannot be read: %v", err)
	}
	if _, got := reopen(t, dir); fmt.Sprint(got) != "[a]" {
		t.Fatalf("got %q", got)
	}
}

func FuzzScan(f *testing.F) {
	dir := f.TempDir()
	j, _ := Open(dir, Options{}, func(uint64, []byte) error { return nil })
	_, _ = j.Append([]byte("hello"), false)
	_, _ = j.Append([]byte("world"), false)
	b, _ := os.ReadFile(j.segments[0].path)
	f.Add(b[:256])
	f.Add(b[:headerSize+recordSize+5]) // the file ends with the record
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		end, next, err := Scan(b, func(uint64, []byte) error { n++; return nil })
		if err == nil && (end > len(b)+8 || next != binary.LittleEndian.Uint64(b[8:])+uint64(n)) {
			t.Fatalf("end %d of %d, next %d after %d records", end, len(b), next, n)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	j, _ := Open(b.TempDir(), Options{}, func(uint64, []byte) error { return nil })
	p := make([]byte, 200)
	for b.Loop() {
		_, _ = j.Append(p, false)
		if len(j.segments) > 4 {
			_ = j.DropBefore(j.next)
		}
	}
}

func BenchmarkAppendSync(b *testing.B) {
	j, _ := Open(b.TempDir(), Options{}, func(uint64, []byte) error { return nil })
	p := make([]byte, 200)
	for b.Loop() {
		_, _ = j.Append(p, false)
		_ = j.Sync()
	}
}

// Segments without anything that is wanted are not read: a start takes no longer
// for what is long in the index.
func TestUnwantedSegmentsAreNotRead(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, Options{SegmentSize: 4096}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		appendAll(t, j, "some record of some length")
	}
	first, last := j.segments[0].first, j.segments[len(j.segments)-1].first
	if len(j.segments) < 2 || first != 1 {
		t.Fatalf("%d segments", len(j.segments))
	}
	for _, s := range j.segments[:len(j.segments)-1] {
		if err := os.WriteFile(s.path, []byte("cannot be read"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, Options{SegmentSize: 4096, After: last - 2}, func(uint64, []byte) error { return nil }); err == nil {
		t.Error("a segment with a record that is wanted was not read")
	}
	got := uint64(0)
	again, err := Open(dir, Options{SegmentSize: 4096, After: last - 1}, func(seq uint64, _ []byte) error {
		if got == 0 {
			got = seq
		}
		return nil
	})
	if err != nil || got != last || again.Next() != 101 {
		t.Errorf("began with %d, want %d; %v", got, last, err)
	}
	if err := again.DropBefore(last); err != nil || len(again.segments) != 1 {
		t.Errorf("%d segments are left, %v", len(again.segments), err)
	}
}
