package packfiles_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"skep/cache/packfiles"
	"skep/chunker/group"
)

func open(t *testing.T, dir string) *packfiles.Store {
	t.Helper()
	s, err := packfiles.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func list(t *testing.T, s *packfiles.Store) (out []string) {
	t.Helper()
	err := s.List(func(id group.ID, n uint16) error {
		out = append(out, fmt.Sprintf("%x-%d", id[:2], n))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func TestPacks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "packs")
	s := open(t, dir)
	a, b := group.ID{0xaa}, group.ID{0xbb}
	for _, p := range []struct {
		id group.ID
		n  uint16
	}{{a, 0}, {a, 255}, {b, 17}} {
		if err := s.Put(p.id, p.n, fmt.Appendf(nil, "pack %x %d", p.id[:1], p.n)); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir) // as after a restart
	if got := fmt.Sprint(list(t, s)); got != "[aa00-0 aa00-255 bb00-17]" {
		t.Errorf("it has %s", got)
	}
	if got, err := s.Get(a, 255); err != nil || string(got) != "pack aa 255" {
		t.Errorf("%q, %v", got, err)
	}
	if p, err := s.Read(b, 17, 5, 4); err != nil || string(p) != "bb 1" {
		t.Errorf("%q, %v", p, err)
	}
	if _, err := s.Read(b, 17, 8, 4); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("behind the end: %v", err)
	}
	if err := s.Put(b, 17, []byte("another")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(b, 17); err != nil || string(got) != "another" {
		t.Errorf("%q, %v", got, err)
	}
	for range 2 { // the second time it is gone already
		if err := s.Remove(a, 0); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Get(a, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed, and yet: %v", err)
	}
	if _, err := s.Read(a, 0, 0, 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed, and yet: %v", err)
	}
}

// A Put that ended in the middle leaves nothing that is taken for a pack.
func TestStrayFiles(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.Put(group.ID{1}, 2, []byte("pack")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"new123", "zz-1", "0102-3", ".hidden", "README", "-", "1-2-3"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(t, s); len(got) != 1 {
		t.Errorf("taken for packs: %v", got)
	}
}

func TestListStops(t *testing.T) {
	s := open(t, t.TempDir())
	for n := range uint16(3) {
		if err := s.Put(group.ID{1}, n, nil); err != nil {
			t.Fatal(err)
		}
	}
	calls, stop := 0, errors.New("stop")
	err := s.List(func(group.ID, uint16) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

// A Put that cannot end says so and leaves no temporary file.
func TestPutFails(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	id := group.ID{7}
	if err := os.Mkdir(filepath.Join(dir, fmt.Sprintf("%x-1", id[:])), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(id, 1, []byte("pack")); err == nil {
		t.Error("a pack took the place of a folder")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestConcurrent(t *testing.T) {
	s := open(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			pack := bytes.Repeat([]byte{byte(i)}, 1000)
			for range 5 {
				if err := s.Put(group.ID{1}, uint16(i%2), pack); err != nil {
					t.Error(err)
				}
				got, err := s.Get(group.ID{1}, uint16(i%2))
				if err != nil || len(got) != 1000 || bytes.Count(got, got[:1]) != 1000 {
					t.Errorf("%d bytes of more than one pack, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
}
