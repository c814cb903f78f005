package state

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"
	"golang.org/x/sys/unix"

	"skep/cache/disk"
)

// damageTables writes rubbish over the blocks of leveldb's tables.
func damageTables(t *testing.T, dir string) {
	t.Helper()
	tables, _ := filepath.Glob(filepath.Join(dir, "index", "*.ldb"))
	if len(tables) == 0 {
		t.Fatal("the index has no tables")
	}
	for _, name := range tables {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(b)/2; at += 64 {
			b[at] ^= 0xff
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
}

// rowsOf are many rows, so that they make tables of several blocks.
func rowsOf(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprintf("key%06d", i)] = strings.Repeat(fmt.Sprint(i, " "), 20)
	}
	return m
}

// damaged is a store whose index was damaged after it was opened, with the rows
// that it had; newer ones, of which one is behind all others, are in memory.
func damaged(t *testing.T, tell func(error)) (s *Store, dir string, rows map[string]string) {
	dir, rows = t.TempDir(), rowsOf(20_000)
	s = open(t, dir)
	for k, v := range rows {
		put(t, s, k, v)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := OpenWith(dir, Options{Damaged: tell})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "z", "last")
	rows["z"] = "last"
	damageTables(t, dir)
	return s, dir, rows
}

// Damage that is met while the index is open is told, stops changes, and is gone
// after the next start.
func TestDamageMetLater(t *testing.T) {
	told := make(chan error, 1)
	s, dir, rows := damaged(t, func(err error) { told <- err })
	failed := 0
	for k, want := range rows {
		v, ok, err := s.Get([]byte(k))
		switch {
		case errors.Is(err, ErrDamaged):
			failed++
		case err != nil || !ok || string(v) != want:
			t.Fatalf("%q is %q, %v, %v; want %q", k, v, ok, err, want)
		}
	}
	if failed == 0 {
		t.Fatal("nothing was damaged")
	}
	if err := <-told; !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), dir) {
		t.Errorf("told: %v", err)
	}
	if !errors.Is(s.Damage(), ErrDamaged) {
		t.Errorf("damage: %v", s.Damage())
	}
	var b Batch
	b.Put([]byte("more"), nil)
	if _, err := s.Apply(&b); !errors.Is(err, ErrDamaged) {
		t.Errorf("applied to a damaged index: %v", err)
	}
	_ = s.Close()
	s = open(t, dir)
	defer s.Close()
	if s.Damage() != nil || s.Rebuilt() {
		t.Errorf("damage %v, rebuilt %v", s.Damage(), s.Rebuilt())
	}
	n := 0
	if err := s.Scan([]byte{1}, []byte{0xff}, func(k, v []byte) bool {
		n++
		return bytes.Equal(v, []byte(rows[string(k)]))
	}); err != nil || n != len(rows) {
		t.Errorf("%d of %d rows: %v", n, len(rows), err)
	}
}

// A scan that meets damage does not go on with what is in memory as if nothing
// lay between.
func TestScanEndsAtDamage(t *testing.T) {
	s, _, _ := damaged(t, nil)
	defer s.Close()
	err := s.Scan([]byte{1}, []byte{0xff}, func(k, _ []byte) bool { return string(k) != "z" })
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("the scan ended with %v", err)
	}
}

// What the disk cannot read counts as damage; what it cannot write does not.
func TestUnreadableIsDamage(t *testing.T) {
	f, opt := faultyOptions()
	dir := t.TempDir()
	rows := rowsOf(2000)
	for _, c := range []struct {
		op      string
		damaged bool
	}{{"write", false}, {"read", true}} {
		s, err := OpenWith(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		f.failOn(c.op, storage.TypeTable, unix.EIO)
		for k, v := range rows {
			if _, _, err := s.Get([]byte(k)); err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: read: %v", c.op, err)
			}
			var b Batch
			b.Put([]byte(k), []byte(v))
			if _, err := s.Apply(&b); err != nil && (!errors.Is(err, unix.EIO) || errors.Is(err, ErrDamaged) != c.damaged) {
				t.Errorf("%s: applied: %v", c.op, err)
			}
		}
		_ = s.Close()
		if _, err := os.Stat(s.damagedMark()); (err == nil) != c.damaged {
			t.Errorf("%s: noted as damaged: %v", c.op, err)
		}
		f.fail.Store(nil)
		s = open(t, dir)
		for k, v := range rows { // what was not taken is taken now
			put(t, s, k, v)
		}
		if err := s.Close(); err != nil || s.Rebuilt() {
			t.Errorf("%v, rebuilt %v", err, s.Rebuilt())
		}
	}
}

// halfRemoving is the disk of a process that is killed while it removes an index: its
// first log is gone.
type halfRemoving struct{ disk.FS }

func (d halfRemoving) RemoveAll(name string) error {
	return errors.Join(errKilled, d.Remove(logsIn(filepath.Dir(name))[0]))
}

var errKilled = errors.New("killed")

// What is left of an index whose removal was broken off can look whole: it is removed as
// well.
func TestRemovalOfAnIndexBrokenOff(t *testing.T) {
	s, dir := twoLogs(t)
	want := dump(t, s)
	to := copyOf(t, dir)
	_ = s.Close()
	first := logsIn(to)[0]
	b, err := os.ReadFile(first)
	if err == nil {
		err = os.WriteFile(first, zeroed(b, len(b)/2, 100), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWith(to, Options{Disk: halfRemoving{disk.Local}}); !errors.Is(err, errKilled) {
		t.Fatalf("opened: %v", err)
	}
	again := open(t, to)
	defer again.Close()
	if got := dump(t, again); got != want {
		t.Errorf("it has %d bytes of rows, not %d", len(got), len(want))
	}
	if _, err := os.Stat(again.damagedMark()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("noted as damaged still: %v", err)
	}
}
