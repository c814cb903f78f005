package backing

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"skep/cache/disk"
)

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Find(); err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t *testing.T, s *Store) uint64 {
	t.Helper()
	n, f, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

func each(t *testing.T, s *Store) (out []uint64) {
	t.Helper()
	if err := s.Each(func(n uint64) error { out = append(out, n); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// Numbers rise, over restarts too, as long as the highest file is there.
func TestNumbers(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	var made []uint64
	for range 600 { // twice around the folders
		made = append(made, create(t, s))
	}
	if !slices.IsSorted(made) || len(slices.Compact(made)) != 600 {
		t.Error("numbers do not rise")
	}
	for _, n := range made[:300] {
		if err := s.Remove(n); err != nil {
			t.Fatal(err)
		}
	}
	s = openStore(t, dir)
	if got := each(t, s); !slices.Equal(got, made[300:]) {
		t.Errorf("%d files, want 300", len(got))
	}
	if s.Last() != made[599] {
		t.Errorf("the last number is %d, not %d", s.Last(), made[599])
	}
	if n := create(t, s); n <= made[599] {
		t.Errorf("number %d again", n)
	}
}

func TestContent(t *testing.T) {
	s := openStore(t, t.TempDir())
	n, f, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("end"), 1<<30); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SyncName(n), f.Close()); err != nil {
		t.Fatal(err)
	}
	st, err := s.Stat(n)
	if err != nil || st.Size != 1<<30+3 || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
	if f, err = s.Open(n); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 3)
	if _, err := f.ReadAt(p, 1<<30); err != nil || string(p) != "end" {
		t.Errorf("%q, %v", p, err)
	}
	if st, err := f.Stat(); err != nil || st.Mode&0o777 != 0o600 {
		t.Errorf("%o, %v", st.Mode, err)
	}
	// It may be removed while it is open, and twice.
	if err := errors.Join(s.Remove(n), s.Remove(n)); err != nil {
		t.Error(err)
	}
	if _, err := f.ReadAt(p, 1<<30); err != nil {
		t.Errorf("removed while it was open: %v", err)
	}
	if _, err := s.Open(n); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed, and yet: %v", err)
	}
	if _, err := s.Stat(n); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed, and yet: %v", err)
	}
}

// Files that are not ours are left alone.
func TestStrayFiles(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	n := create(t, s)
	for _, name := range []string{"00/lost+found", "ab/notes.txt"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := each(t, openStore(t, dir)); !slices.Equal(got, []uint64{n}) {
		t.Errorf("files %v", got)
	}
}

func TestEachStops(t *testing.T) {
	s := openStore(t, t.TempDir())
	create(t, s)
	create(t, s)
	calls, stop := 0, errors.New("stop")
	if err := s.Each(func(uint64) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

// A scratch file has no name and is gone when it is closed.
func TestScratch(t *testing.T) {
	s := openStore(t, t.TempDir())
	f, err := s.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); err != nil {
		t.Error(err)
	}
	if got := each(t, s); len(got) != 0 {
		t.Errorf("files %v", got)
	}
}

func TestDisk(t *testing.T) {
	s := openStore(t, t.TempDir())
	if total, avail, err := s.Disk(); err != nil || total <= 0 || avail < 0 || avail > total {
		t.Errorf("%d of %d, %v", avail, total, err)
	}
}

func TestCreateConcurrently(t *testing.T) {
	s := openStore(t, t.TempDir())
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				n, f, err := s.Create()
				if err != nil {
					t.Error(err)
					return
				}
				_ = f.Close()
				mu.Lock()
				if seen[n] {
					t.Errorf("number %d twice", n)
				}
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// Where numbers go on is told, not looked for; those that are in use all the
// same are passed over, and their content stays.
func TestStartPassesOverFiles(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	var last uint64
	for i := range 5 {
		n, f, err := s.Create()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{byte(i)}, 0); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		last = n
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Start(last - 2)
	n, f, err := again.Create()
	if err != nil || n != last+1 {
		t.Fatalf("made %d, want %d: %v", n, last+1, err)
	}
	_ = f.Close()
	if !again.IsOld(last-2) || again.IsOld(last-1) || again.IsOld(n) {
		t.Error("does not know what is old")
	}
	st, err := again.Stat(last)
	if err != nil || st.Size != 1 {
		t.Errorf("size %d, %v", st.Size, err)
	}
}

// named counts the directories that are flushed, and those that are made.
type named struct {
	disk.FS
	mu           sync.Mutex // guards both
	synced, made []string
}

func (f *named) Mkdir(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made = append(f.made, dir)
	return f.FS.Mkdir(dir)
}

func (f *named) SyncDir(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.synced = append(f.synced, dir)
	return f.FS.SyncDir(dir)
}

// Folders are made when something comes into them, and flushed before the name of
// that counts as flushed.
func TestFoldersAreMadeWhenNeeded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "files")
	f := &named{FS: disk.Local}
	s, err := OpenOn(f, dir)
	if err != nil {
		t.Fatal(err)
	}
	s.Start(0)
	if len(f.made) > 1 {
		t.Errorf("made at once: %q", f.made)
	}
	n := create(t, s)
	f.synced = nil
	for range 2 {
		if err := s.SyncName(n); err != nil {
			t.Fatal(err)
		}
	}
	if folder := s.folder(n); !slices.Equal(f.synced, []string{dir, folder, folder}) {
		t.Errorf("flushed %q", f.synced)
	}
}
