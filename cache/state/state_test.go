package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"skep/cache/journal"
)

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *Store, kv ...string) uint64 {
	t.Helper()
	var b Batch
	for i := 0; i < len(kv); i += 2 {
		b.Put([]byte(kv[i]), []byte(kv[i+1]))
	}
	seq, err := s.Apply(&b)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func dump(t testing.TB, r Reader) string {
	t.Helper()
	var out bytes.Buffer
	if err := r.Scan([]byte{1}, nil, func(k, v []byte) bool {
		fmt.Fprintf(&out, "%s=%s ", k, v)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// crash opens the directory again as if the process had been killed: nothing is
// closed but the lock that the kernel would have released.
func crash(t testing.TB, s *Store) *Store {
	t.Helper()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.flushes.Wait()
	_ = s.db.Close()
	return open(t, s.dir)
}

// The tables behave as a sorted map, whatever is in the overlay, on its way, or
// in leveldb, and through crashes at any point between two batches.
func TestStoreIsASortedMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "state")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		s := open(t, dir)
		defer func() { _ = s.Close() }()
		model := map[string]string{}
		key := rapid.SampledFrom([]string{"a", "ab", "b", "c", "ca", "d"})
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch rapid.IntRange(0, 6).Draw(rt, "step") {
			case 0, 1:
				var b Batch
				for range rapid.IntRange(1, 3).Draw(rt, "n") {
					k, v := key.Draw(rt, "key"), rapid.StringN(0, 8, 8).Draw(rt, "value")
					b.Put([]byte(k), []byte(v))
					model[k] = v
				}
				if _, err := s.Apply(&b); err != nil {
					rt.Fatal(err)
				}
			case 2:
				k := key.Draw(rt, "key")
				var b Batch
				b.Delete([]byte(k))
				delete(model, k)
				if _, err := s.Apply(&b); err != nil {
					rt.Fatal(err)
				}
			case 3:
				k, off := key.Draw(rt, "key"), rapid.IntRange(0, 6).Draw(rt, "offset")
				part := rapid.StringN(0, 4, 4).Draw(rt, "part")
				var b Batch
				b.Patch([]byte(k), off, []byte(part))
				v := []byte(model[k])
				if need := off + len(part); len(v) < need {
					v = append(v, make([]byte, need-len(v))...)
				}
				copy(v[off:], part)
				model[k] = string(v)
				if _, err := s.Apply(&b); err != nil {
					rt.Fatal(err)
				}
			case 4:
				c := s.BeginCut()
				want := dump(t, s)
				put(t, s, "zz", "later")
				model["zz"] = "later"
				view, err := c.View()
				if err != nil {
					rt.Fatal(err)
				}
				if got := dump(t, view); got != want {
					rt.Fatalf("cut has %q, the tables had %q", got, want)
				}
				view.Release()
			case 5:
				s = crash(t, s)
			case 6:
				s.mu.Lock()
				s.freeze()
				s.flushSoon()
				s.mu.Unlock()
			}
			keys := make([]string, 0, len(model))
			for k := range model {
				keys = append(keys, k)
			}
			sort.Strings(keys)
			var want bytes.Buffer
			for _, k := range keys {
				fmt.Fprintf(&want, "%s=%s ", k, model[k])
				v, ok, err := s.Get([]byte(k))
				if err != nil || !ok || string(v) != model[k] {
					rt.Fatalf("%q is %q, %v, %v; want %q", k, v, ok, err, model[k])
				}
			}
			if got := dump(t, s); got != want.String() {
				rt.Fatalf("scan gives %q, want %q", got, want.String())
			}
		}
	})
}

func TestDamagedIndexIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "a", "1", "b", "2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	manifests, _ := filepath.Glob(filepath.Join(dir, "index", "MANIFEST*"))
	_ = os.WriteFile(manifests[0], []byte("rubbish"), 0o600)
	s = open(t, dir)
	defer s.Close()
	if got := dump(t, s); got != "a=1 b=2 " || s.Rebuilt() {
		t.Fatalf("got %q, rebuilt %v", got, s.Rebuilt())
	}
}

// An index that was lost after the journal's beginning had been forgotten is
// told to the caller, who has the rest.
func TestRebuiltIsTold(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var big Batch
	big.Put([]byte("big"), bytes.Repeat([]byte{1}, 10<<20))
	for range 3 {
		if _, err := s.Apply(&big); err != nil {
			t.Fatal(err)
		}
	}
	seq := put(t, s, "a", "1")
	if err := s.Forget(seq); err != nil {
		t.Fatal(err)
	}
	put(t, s, "b", "2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_ = os.RemoveAll(filepath.Join(dir, "index"))
	s = open(t, dir)
	defer s.Close()
	if !s.Rebuilt() {
		t.Error("a lost index was not told")
	}
	if v, ok, _ := s.Get([]byte("b")); !ok || string(v) != "2" {
		t.Error("what the journal holds is not there")
	}
	again := func() {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir)
	}
	put(t, s, "c", "3")
	if again(); !s.Rebuilt() {
		t.Error("a lost index was forgotten before what it held was back")
	}
	if err := s.Restored(); err != nil {
		t.Fatal(err)
	}
	if again(); s.Rebuilt() {
		t.Error("the index still counts as lost")
	}
}

// Tables without a journal are those of another one: nothing of them may be
// taken for the truth, and nothing else is there.
func TestIndexWithoutJournalIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "a", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_ = os.RemoveAll(filepath.Join(dir, "journal"))
	if _, err := Open(dir); !errors.Is(err, journal.ErrDamaged) {
		t.Fatalf("opened: %v", err)
	}
}

// leveldb never gets ahead of what is on the disk of the journal. If it is, the end
// of the journal is lost, with one of its files or in it: that is refused, not rolled
// back, and comes right when the file is put back.
func TestJournalWithoutItsEndIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "a", "1")
	var big Batch
	big.Put([]byte("big"), bytes.Repeat([]byte{1}, 10<<20))
	for range 2 {
		if _, err := s.Apply(&big); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, "b", "2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	segs, _ := filepath.Glob(filepath.Join(dir, "journal", "*.journal"))
	if len(segs) != 2 {
		t.Fatalf("the journal is in %q", segs)
	}
	refused := func(what string, harm func(name string) error) {
		t.Helper()
		name := segs[len(segs)-1]
		good, _ := os.ReadFile(name)
		if err := harm(name); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := Check(dir); !errors.Is(err, journal.ErrDamaged) {
				t.Errorf("%s: checked: %v", what, err)
			}
			if _, err := Open(dir); !errors.Is(err, journal.ErrDamaged) {
				t.Fatalf("%s: opened: %v", what, err)
			}
		}
		if err := os.WriteFile(name, good, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Check(dir); err != nil {
			t.Errorf("%s, put back: checked: %v", what, err)
		}
		s = open(t, dir)
		if v, ok, err := s.Get([]byte("b")); err != nil || !ok || string(v) != "2" || s.Rebuilt() {
			t.Errorf("%s, put back: %q, %v, %v", what, v, ok, err)
		}
		_ = s.Close()
	}
	refused("the last segment is gone", os.Remove)
	refused("it was never begun", func(name string) error { return os.Truncate(name, 0) })
	refused("it lacks its end", func(name string) error { return os.Truncate(name, 100) })
}

func FuzzDecode(f *testing.F) {
	var b Batch
	b.Put([]byte("k"), []byte("v"))
	b.Delete([]byte("k"))
	b.Patch([]byte("k"), 3, []byte("v"))
	f.Add(b.buf)
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := Decode(p)
		if err == nil && b.n > len(p) {
			t.Fatal("more changes than bytes")
		}
	})
}

// Overwriting one row again and again takes no more memory than writing many.
func TestOverwritingIsBounded(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	value := strings.Repeat("x", 16<<10)
	for range 8 * overlaySize / len(value) {
		put(t, s, "a", value)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if n := s.waiting(); n > overlayMax*overlaySize+2*len(value) {
		t.Errorf("%d bytes wait in memory", n)
	}
}

func BenchmarkApply(b *testing.B) {
	s := open(b, b.TempDir())
	defer s.Close()
	v := make([]byte, 150)
	var k [9]byte
	k[0] = 'i'
	i := 0
	for b.Loop() {
		i++
		var ba Batch
		for j := range 4 {
			k[7], k[6], k[5], k[8] = byte(i>>8), byte(i>>16), byte(i), byte(j)
			ba.Put(k[:], v)
		}
		_, _ = s.Apply(&ba)
		if i%50000 == 0 {
			_ = s.Forget(s.Seq())
		}
	}
}

func BenchmarkGet(b *testing.B) {
	s := open(b, b.TempDir())
	defer s.Close()
	for i := range 10000 {
		put(b, s, fmt.Sprint("key", i), "some value that is about as long as an inode")
	}
	b.Run("overlay", func(b *testing.B) {
		for b.Loop() {
			_, _, _ = s.Get([]byte("key777"))
		}
	})
	c := s.BeginCut()
	view, _ := c.View()
	view.Release()
	b.Run("leveldb", func(b *testing.B) {
		for b.Loop() {
			_, _, _ = s.Get([]byte("key777"))
		}
	})
}

// Change sees rows as they are, whatever happened to them since they were read,
// and nobody comes between.
func TestChange(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	for _, k := range []string{"same", "changed", "gone", "moved"} {
		put(t, s, k, "old")
	}
	flush := func() {
		t.Helper()
		if view, err := s.BeginCut().View(); err != nil {
			t.Fatal(err)
		} else {
			view.Release()
		}
	}
	flush()
	look := s.Look()
	var rows []Row
	for _, k := range []string{"same", "changed", "gone", "new", "none"} {
		v, there, err := s.Get([]byte(k))
		if err != nil {
			t.Fatal(err)
		}
		r := Row{Key: []byte(k)}
		if there {
			r.Value = v
		}
		rows = append(rows, r)
	}
	put(t, s, "changed", "now")
	put(t, s, "new", "now")
	var b Batch
	b.Delete([]byte("gone"))
	if _, err := s.Apply(&b); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{"in memory", "in leveldb"} {
		saw := ""
		err := s.Change(look, rows, func(b *Batch, now Row) {
			saw += fmt.Sprintf("%s=%s ", now.Key, now.Value)
			b.Put(append([]byte("seen-"), now.Key...), now.Value)
		})
		if want := "same=old changed=now gone= new=now none= "; err != nil || saw != want {
			t.Errorf("%s: saw %q, want %q: %v", where, saw, want, err)
		}
		flush()
	}
	if v, ok, err := s.Get([]byte("seen-new")); err != nil || !ok || string(v) != "now" {
		t.Errorf("what Change added is %q, %v", v, err)
	}
}
