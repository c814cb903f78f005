package hosted_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"skep/cache/hosted"
	"skep/chunker/group"
	"skep/net/holder"
	"skep/test/storetest"
)

func open(t *testing.T, dir string, offer int64) *hosted.Store {
	t.Helper()
	s, err := hosted.Open(dir, offer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestStore(t *testing.T) {
	storetest.Test(t, func(t *testing.T) holder.Store { return open(t, t.TempDir(), 64<<20) })
}

// filled is a store with packs 0 … n-1 of one group in slot 1, and a record.
func filled(t *testing.T, dir string, n uint16) (*hosted.Store, *storetest.Owner) {
	t.Helper()
	s := open(t, dir, 64<<20)
	o := storetest.NewOwner(1, 18, 2, 3)
	l, word := o.Lease(4, storetest.Until, storetest.Dead(200))
	if _, err := s.Admit(l, word, 1, group.PeerKey{}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		put(t, s, o.Pack(t, i))
	}
	r, rec := storetest.Record(5, 1, storetest.Until, 100)
	if err := s.PutRecord(r.Key(), rec, [32]byte{7}); err != nil {
		t.Fatal(err)
	}
	return s, o
}

func put(t *testing.T, s *hosted.Store, p storetest.Pack) {
	t.Helper()
	if err := s.PutShard(&p.Manifest, p.Word, 1, bytes.NewReader(p.Shards[1])); err != nil {
		t.Fatal(err)
	}
}

// shardFiles are the files of a store's shards, in the order of their numbers.
func shardFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "groups", "*", "[0-9]*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no shards: %v", err)
	}
	return files
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	s, o := filled(t, dir, 3)
	want, _ := s.Holding(o.ID)
	_, wantUsed := s.Room()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tmp", "9"), make([]byte, 999), 0o600); err != nil {
		t.Fatal(err) // what a crash leaves of a shard that was arriving
	}
	s = open(t, dir, 64<<20)
	got, ok := s.Holding(o.ID)
	if _, used := s.Room(); used != wantUsed {
		t.Errorf("%d bytes taken, %d before", used, wantUsed)
	}
	if !ok || got.Held != want.Held || got.Dead != want.Dead || got.Slot != 1 || got.Class != want.Class || got.Coding != want.Coding ||
		got.Last != want.Last || !bytes.Equal(got.Word, want.Word) {
		t.Errorf("holding is %+v, was %+v", got, want)
	}
	for i := range uint16(3) {
		storetest.Check(t, s, o.Pack(t, i), 1)
	}
	r, rec := storetest.Record(5, 1, storetest.Until, 100)
	if word, from, err := s.Record(r.Key()); err != nil || !bytes.Equal(word, rec) || from != [32]byte{7} {
		t.Errorf("record: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(left) != 0 {
		t.Errorf("tmp still has %d files", len(left))
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hosted")
	filled(t, dir, 1)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err == nil && fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, fi.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Damage that shows in names and lengths is found when the store is opened.
func TestCutShort(t *testing.T) {
	for _, cut := range []int64{0, 100, 4096, 8192, 131072} {
		dir := t.TempDir()
		s, o := filled(t, dir, 2)
		_ = s.Close()
		if err := os.Truncate(shardFiles(t, dir)[0], cut); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, 64<<20)
		h, _ := s.Holding(o.ID)
		if h.Held.Has(0) || !h.Held.Has(1) {
			t.Errorf("cut to %d bytes: holds %d packs", cut, h.Held.Count())
		}
		storetest.Check(t, s, o.Pack(t, 1), 1)
		put(t, s, o.Pack(t, 0))
		storetest.Check(t, s, o.Pack(t, 0), 1)
		_ = s.Close()
	}
}

// Damage inside a file is found when it is read: it is never served, and no
// longer claimed.
func TestAltered(t *testing.T) {
	fi := func(name string) int64 { return fileSize(t, name) }
	for name, at := range map[string]func(string) int64{
		"magic":      func(string) int64 { return 0 },
		"length":     func(string) int64 { return 10 },
		"manifest":   func(string) int64 { return 60 },
		"tree":       func(string) int64 { return 600 },
		"first byte": func(f string) int64 { return fi(f) - 131072 },
		"middle":     func(f string) int64 { return fi(f) - 70000 },
		"last byte":  func(f string) int64 { return fi(f) - 1 },
	} {
		for _, reopen := range []bool{false, true} {
			dir := t.TempDir()
			s, o := filled(t, dir, 2)
			file := shardFiles(t, dir)[1]
			flip(t, file, at(file))
			if reopen {
				_ = s.Close()
				s = open(t, dir, 64<<20)
			}
			if err := s.WriteSlice(io.Discard, o.ID, 1, 0, 131072); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s altered, reopened %v: %v", name, reopen, err)
			}
			if h, _ := s.Holding(o.ID); h.Held.Has(1) || !h.Held.Has(0) {
				t.Errorf("%s altered, reopened %v: still claimed", name, reopen)
			}
			if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s altered: the file is still there", name)
			}
			put(t, s, o.Pack(t, 1))
			storetest.Check(t, s, o.Pack(t, 1), 1)
			_ = s.Close()
		}
	}
}

func fileSize(t *testing.T, name string) int64 {
	t.Helper()
	st, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// Damage is also found by looking for it, whatever the file suffered.
func TestVerifyFindsDamage(t *testing.T) {
	flipAt := func(at func(size int64) int64) func(*testing.T, string) {
		return func(t *testing.T, file string) {
			st, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			flip(t, file, at(st.Size()))
		}
	}
	cut := func(by int64) func(*testing.T, string) {
		return func(t *testing.T, file string) {
			st, err := os.Stat(file)
			if err == nil {
				err = os.Truncate(file, st.Size()-by)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, harm := range map[string]func(*testing.T, string){
		"magic":      flipAt(func(int64) int64 { return 0 }),
		"manifest":   flipAt(func(int64) int64 { return 60 }),
		"tree":       flipAt(func(int64) int64 { return 600 }),
		"first byte": flipAt(func(n int64) int64 { return n - 131072 }),
		"last byte":  flipAt(func(n int64) int64 { return n - 1 }),
		"a byte off": cut(1),
		"a page off": cut(4096),
		"empty":      cut(131072 + 4096),
		"gone": func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, o := filled(t, dir, 2)
			_, before := s.Room()
			storetest.Check(t, s, o.Pack(t, 1), 1) // its head is in memory now
			harm(t, shardFiles(t, dir)[1])
			if err := s.Verify(o.ID, 0); err != nil {
				t.Errorf("the one that is well: %v", err)
			}
			if err := s.Verify(o.ID, 1); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("verify: %v", err)
			}
			if h, _ := s.Holding(o.ID); h.Held.Has(1) || !h.Held.Has(0) {
				t.Error("still claimed")
			}
			put(t, s, o.Pack(t, 1))
			if err := s.Verify(o.ID, 1); err != nil {
				t.Errorf("after it was brought again: %v", err)
			}
			if _, used := s.Room(); used != before {
				t.Errorf("%d bytes taken, %d before", used, before)
			}
		})
	}
}

// A lease that rots is written again while the store still knows it.
func TestVerifyLease(t *testing.T) {
	dir := t.TempDir()
	s, o := filled(t, dir, 1)
	leases, _ := filepath.Glob(filepath.Join(dir, "groups", "*", "lease"))
	for _, harm := range []func(){func() { flip(t, leases[0], 40) }, func() { _ = os.Remove(leases[0]) }, func() {}} {
		harm()
		if err := s.VerifyLease(o.ID); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.Close()
	s = open(t, dir, 64<<20)
	if h, _ := s.Holding(o.ID); h.Word == nil || !h.Dead.Has(200) {
		t.Errorf("holding is %+v", h)
	}
}

func flip(t *testing.T, file string, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func TestFileGone(t *testing.T) {
	dir := t.TempDir()
	s, o := filled(t, dir, 2)
	if err := os.Remove(shardFiles(t, dir)[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Manifest(o.ID, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("manifest of a shard whose file is gone: %v", err)
	}
	if h, _ := s.Holding(o.ID); h.Held.Count() != 1 {
		t.Errorf("claims %d shards", h.Held.Count())
	}
}

// A damaged lease does not take the shards with it.
func TestLeaseLost(t *testing.T) {
	dir := t.TempDir()
	s, o := filled(t, dir, 2)
	_ = s.Close()
	leases, _ := filepath.Glob(filepath.Join(dir, "groups", "*", "lease"))
	flip(t, leases[0], 40)
	s = open(t, dir, 64<<20)
	h, ok := s.Holding(o.ID)
	if !ok || h.Word != nil || h.Slot != 1 || h.Held.Count() != 2 {
		t.Fatalf("holding is %+v, %v", h, ok)
	}
	storetest.Check(t, s, o.Pack(t, 0), 1)
	p := o.Pack(t, 2)
	if err := s.PutShard(&p.Manifest, p.Word, 1, bytes.NewReader(p.Shards[1])); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("put without a lease: %v", err)
	}
	l, word := o.Lease(5, storetest.Until)
	if _, err := s.Admit(l, word, 1, group.PeerKey{}); err != nil {
		t.Fatal(err)
	}
	put(t, s, p)
}

func TestRecordDamaged(t *testing.T) {
	dir := t.TempDir()
	s, _ := filled(t, dir, 1)
	files, _ := filepath.Glob(filepath.Join(dir, "records", "*"))
	flip(t, files[0], 50)
	r, _ := storetest.Record(5, 1, storetest.Until, 100)
	if _, _, err := s.Record(r.Key()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("damaged record: %v", err)
	}
	if len(s.Records()) != 0 {
		t.Error("it is still listed")
	}
}

func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	s, o := filled(t, dir, 1)
	_ = s.Close()
	groupDir := filepath.Dir(shardFiles(t, dir)[0])
	for _, name := range []string{
		filepath.Join(groupDir, "007-001-99999999"), filepath.Join(groupDir, "7-1-5"), filepath.Join(groupDir, "../../records/zz"),
		filepath.Join(groupDir, "../README"),
	} {
		if err := os.WriteFile(name, []byte("?"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(groupDir, "008-001-139264")); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, 64<<20)
	if h, _ := s.Holding(o.ID); h.Held.Count() != 1 {
		t.Errorf("holds %d packs", h.Held.Count())
	}
	storetest.Check(t, s, o.Pack(t, 0), 1)
}

// A disk that has become too full for the offer is no reason not to serve what is
// there.
func TestOffer(t *testing.T) {
	s := open(t, t.TempDir(), 1<<60)
	if offered, used := s.Room(); offered >= 1<<60 || used > 1<<20 {
		t.Errorf("%d bytes offered, %d used, of an exbibyte", offered, used)
	}
	if _, err := hosted.Open(t.TempDir(), -1); err == nil {
		t.Error("a negative offer was taken")
	}
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1<<20)
	if _, err := hosted.Open(dir, 1<<20); !errors.Is(err, hosted.ErrInUse) {
		t.Errorf("second opener: %v", err)
	}
	_ = s.Close()
	open(t, dir, 1<<20)
}

// A full disk refuses what does not fit and keeps what there is.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts a small tmpfs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=600k"); err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	s := open(t, dir, 400<<10)
	t.Cleanup(func() { _ = s.Close() })
	o := storetest.NewOwner(1, 18, 2, 3)
	l, word := o.Lease(1, storetest.Until)
	if _, err := s.Admit(l, word, 1, group.PeerKey{}); err != nil {
		t.Fatal(err)
	}
	stored, full := uint16(0), false
	for n := range uint16(8) {
		p := o.Pack(t, n)
		err := s.PutShard(&p.Manifest, p.Word, 1, bytes.NewReader(p.Shards[1]))
		if errors.Is(err, syscall.ENOSPC) {
			full = true
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		stored++
	}
	if !full || stored == 0 {
		t.Fatalf("stored %d packs, full %v", stored, full)
	}
	h, _ := s.Holding(o.ID)
	if h.Held.Count() != int(stored) {
		t.Errorf("claims %d of %d packs", h.Held.Count(), stored)
	}
	for n := range stored {
		storetest.Check(t, s, o.Pack(t, n), 1)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(left) != 0 {
		t.Errorf("tmp still has %d files", len(left))
	}

	// Somebody else takes what is left to the last byte: who deletes can do so.
	rest, err := os.Create(filepath.Join(dir, "rest"))
	for err == nil {
		_, err = rest.Write(make([]byte, 4096))
	}
	_ = rest.Close()
	l, word = o.Lease(2, storetest.Until, storetest.Dead(0, 1, 2, 3, 4, 5, 6, 7))
	if h, err := s.Admit(l, word, 1, group.PeerKey{}); err != nil || h.Held.Count() > 0 {
		t.Errorf("%d dead shards are held, %v", h.Held.Count(), err)
	}
}

func TestErrorsNameThePack(t *testing.T) {
	s, o := filled(t, t.TempDir(), 1)
	_, err := s.Manifest(o.ID, 9)
	if err == nil || !strings.Contains(err.Error(), "pack 9") {
		t.Errorf("error is %v", err)
	}
}

// A store whose folder somebody removed takes nothing more, and says so.
func TestRoomOfAStoreThatIsGone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1<<40)
	if offered, used := s.Room(); offered <= used {
		t.Fatalf("an empty store offers %d bytes, of which %d are used", offered, used)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if offered, used := s.Room(); offered > used {
		t.Errorf("a store without a folder has room for %d bytes", offered-used)
	}
}
