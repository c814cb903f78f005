package state

import (
	"os"
	"path/filepath"
	"testing"
)

// After power loss the end of leveldb's log may be there, and not what came before:
// the index goes as far as there is no gap, and the journal has the rest.
func TestTornLogOfTheIndex(t *testing.T) {
	for _, at := range []int64{0, 100, 33_000, 70_000} {
		dir, rows := t.TempDir(), rowsOf(1500)
		s := open(t, dir)
		for k, v := range rows {
			put(t, s, k, v)
		}
		if err := s.Forget(1); err != nil { // leveldb has all, and the journal too
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		tear(t, dir, at)
		s = open(t, dir)
		for k, want := range rows {
			if v, ok, err := s.Get([]byte(k)); err != nil || !ok || string(v) != want {
				t.Fatalf("torn at %d: %q is %q, %v, %v", at, k, v, ok, err)
			}
		}
		if s.Rebuilt() {
			t.Errorf("torn at %d: rows count as lost", at)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// tear makes zeros of a piece of leveldb's log.
func tear(t *testing.T, dir string, at int64) {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(dir, "index", "*.log"))
	if len(logs) != 1 {
		t.Fatalf("the index has the logs %q", logs)
	}
	f, err := os.OpenFile(logs[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() < at+512 {
		t.Fatalf("the log is too short: %v, %v", st.Size(), err)
	}
	if _, err := f.WriteAt(make([]byte, 512), at); err != nil {
		t.Fatal(err)
	}
}
