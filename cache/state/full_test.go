package state

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"
	"golang.org/x/sys/unix"

	"skep/cache/disk"
)

// fullDisk is where leveldb makes no new file while there is no room.
type fullDisk struct {
	storage.Storage
	full *atomic.Bool
}

func (d fullDisk) Create(fd storage.FileDesc) (storage.Writer, error) {
	if d.full.Load() {
		return nil, unix.ENOSPC
	}
	return d.Storage.Create(fd)
}

// A disk without any room is no reason not to open: what is there can be read, and
// changed as far as the journal has room, over several starts; when there is room
// again, all of it gets into the index.
func TestOpenOnAFullDisk(t *testing.T) {
	var full atomic.Bool
	dir, opt := t.TempDir(), Options{OverlaySize: 64 << 10}
	opt.Index = func(dir string) (storage.Storage, error) {
		stor, err := storage.OpenFile(dir, false)
		return fullDisk{stor, &full}, err
	}
	s, err := OpenWith(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "before", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	for i := range 3 {
		if s, err = OpenWith(dir, opt); err != nil {
			t.Fatal(err)
		}
		for j := range 50 {
			put(t, s, fmt.Sprintf("during%d-%02d", i, j), string(make([]byte, 1000)))
		}
		put(t, s, "last", fmt.Sprint(i))
		for range 3 * overlayMax {
			if _, err := s.BeginCut().View(); !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("a cut on a full disk: %v", err)
			}
		}
		if n := len(s.frozen); n > 2*overlayMax {
			t.Fatalf("%d overlays wait", n)
		}
		if v, _, err := s.Get([]byte("before")); string(v) != "1" || err != nil {
			t.Fatalf("%q, %v", v, err)
		}
		if err := s.Close(); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("closing on a full disk: %v", err)
		}
	}
	if s, err = OpenWith(dir, opt); err != nil {
		t.Fatal(err)
	}
	want := dump(t, s)
	full.Store(false)
	view := cutInTheEnd(t, s)
	if got := dump(t, view); got != want {
		t.Errorf("after the disk was full: %d bytes of rows, want %d", len(got), len(want))
	}
	view.Release()
	if v, _, err := s.Get([]byte("last")); string(v) != "2" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	if got := dump(t, s); got != want {
		t.Error("the index differs")
	}
}

// cutInTheEnd takes a view of a store whose disk was full until now.
func cutInTheEnd(t *testing.T, s *Store) *View {
	t.Helper()
	for range 2 { // the first may only have tried
		if view, err := s.BeginCut().View(); err == nil {
			return view
		}
	}
	t.Fatal("no cut, though there is room again")
	return nil
}

// heldDisk has no room until the ballast is given up.
type heldDisk struct {
	disk.FS
	full *atomic.Bool
}

func (d heldDisk) Room(string) (total, avail int64, err error) {
	if d.full.Load() {
		return 1 << 30, 0, nil
	}
	return 1 << 30, 64 << 20, nil
}

func (d heldDisk) Remove(name string) error {
	if filepath.Base(name) == "ballast" {
		d.full.Store(false)
	}
	return d.FS.Remove(name)
}

// What takes an overlay into the index gives up the ballast at once when the disk is full,
// and does not fail.
func TestBallastIsGivenUpAtOnce(t *testing.T) {
	for what, do := range map[string]func(s *Store) error{
		"cut": func(s *Store) error {
			view, err := s.BeginCut().View()
			if err == nil {
				view.Release()
			}
			return err
		},
		"forget": func(s *Store) error { return s.Forget(1) },
		"close":  (*Store).Close,
	} {
		var full atomic.Bool
		f, opt := faultyOptions()
		opt.Disk = heldDisk{disk.Local, &full}
		fail := func(op string, _ storage.FileType) error {
			if full.Load() && (op == "create" || op == "write") {
				return unix.ENOSPC
			}
			return nil
		}
		f.fail.Store(&fail)
		dir := t.TempDir()
		s, err := OpenWith(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Stock(1 << 20); err != nil || s.Ballast() == 0 {
			t.Fatalf("it holds %d bytes: %v", s.Ballast(), err)
		}
		put(t, s, "a", "1")
		full.Store(true)
		if err := do(s); err != nil || s.Ballast() > 0 {
			t.Errorf("%s: %v; it holds %d bytes", what, err, s.Ballast())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s = open(t, dir)
		if got := dump(t, s); got != "a=1 " {
			t.Errorf("%s: it has %q", what, got)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// However often the journal is to be cut or rows are to give their room back on a full
// disk, no more overlays wait. With room again, it goes the second time at the latest.
func TestAttemptsOnAFullDisk(t *testing.T) {
	for what, do := range map[string]func(s *Store) error{
		"forget":  func(s *Store) error { return s.Forget(1) },
		"compact": func(s *Store) error { return compact(s, 'b') },
	} {
		s, f, _ := onFaulty(t)
		f.failOn("write", storage.TypeJournal|storage.TypeTable, unix.ENOSPC)
		for i := range 3 * overlayMax {
			put(t, s, "b", fmt.Sprint(i))
			if err := do(s); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("%s on a full disk: %v", what, err)
			}
		}
		if n := len(s.frozen); n > overlayMax {
			t.Errorf("%s: %d overlays wait", what, n)
		}
		f.fail.Store(nil)
		if err := do(s); err != nil {
			if err = do(s); err != nil {
				t.Errorf("%s with room again: %v", what, err)
			}
		}
		if n := len(s.frozen) + s.active.Len(); n > 0 {
			t.Errorf("%s: %d are left", what, n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
