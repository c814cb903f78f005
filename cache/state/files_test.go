package state

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"
	"golang.org/x/sys/unix"
)

// faults say where storages fail.
type faults struct {
	fail atomic.Pointer[func(op string, kind storage.FileType) error] // nil: all goes well
}

// faulty is a storage that fails where it is told to.
type faulty struct {
	storage.Storage
	*faults
}

// faultyOptions are those of a store with small overlays on faulty storages.
func faultyOptions() (*faults, Options) {
	f := &faults{}
	return f, Options{OverlaySize: 64 << 10, Index: func(dir string) (storage.Storage, error) {
		stor, err := storage.OpenFile(dir, false)
		return faulty{stor, f}, err
	}}
}

// onFaulty is an empty store on a faulty storage, in dir.
func onFaulty(t *testing.T) (s *Store, f *faults, dir string) {
	t.Helper()
	f, opt := faultyOptions()
	dir = t.TempDir()
	s, err := OpenWith(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	return s, f, dir
}

// failOn has what is done to files of a kind fail with err.
func (f *faults) failOn(op string, kind storage.FileType, err error) {
	fail := func(o string, k storage.FileType) error {
		if o == op && k&kind != 0 {
			return err
		}
		return nil
	}
	f.fail.Store(&fail)
}

func (f *faults) err(op string, kind storage.FileType) error {
	if fail := f.fail.Load(); fail != nil {
		return (*fail)(op, kind)
	}
	return nil
}

func (f faulty) Create(fd storage.FileDesc) (storage.Writer, error) {
	if err := f.err("create", fd.Type); err != nil {
		return nil, err
	}
	w, err := f.Storage.Create(fd)
	return faultyWriter{w, f.faults, fd.Type}, err
}

func (f faulty) SetMeta(fd storage.FileDesc) error {
	return errors.Join(f.err("meta", fd.Type), f.Storage.SetMeta(fd))
}

func (f faulty) Remove(fd storage.FileDesc) error {
	if err := f.err("remove", fd.Type); err != nil {
		return err
	}
	return f.Storage.Remove(fd)
}

func (f faulty) Open(fd storage.FileDesc) (storage.Reader, error) {
	if err := f.err("open", fd.Type); err != nil {
		return nil, err
	}
	r, err := f.Storage.Open(fd)
	return faultyReader{r, f.faults, fd.Type}, err
}

type faultyReader struct {
	storage.Reader
	f    *faults
	kind storage.FileType
}

func (r faultyReader) ReadAt(p []byte, off int64) (int, error) {
	if err := r.f.err("read", r.kind); err != nil {
		return 0, &os.PathError{Op: "read", Path: "x", Err: err}
	}
	return r.Reader.ReadAt(p, off)
}

type faultyWriter struct {
	storage.Writer
	f    *faults
	kind storage.FileType
}

func (w faultyWriter) Write(p []byte) (int, error) {
	if err := w.f.err("write", w.kind); err != nil {
		return 0, err
	}
	return w.Writer.Write(p)
}

func (w faultyWriter) Sync() error {
	return errors.Join(w.f.err("sync", w.kind), w.Writer.Sync())
}

// After a log, the manifest or what names it failed nothing is changed any more, also
// when the disk is well again; a table that failed hinders nothing.
func TestNothingChangesBehindAFailure(t *testing.T) {
	for _, c := range []struct {
		op    string
		kind  storage.FileType
		vital bool
	}{
		{"write", storage.TypeJournal, true}, {"sync", storage.TypeJournal, true}, {"close", storage.TypeJournal, true},
		{"write", storage.TypeManifest, true}, {"sync", storage.TypeManifest, true}, {"meta", storage.TypeManifest, true},
		{"write", storage.TypeTable, false}, {"sync", storage.TypeTable, false}, {"create", storage.TypeTable, false},
	} {
		under := faulty{storage.NewMemStorage(), &faults{}}
		f := &files{Storage: under}
		other, err := f.Create(storage.FileDesc{Type: storage.TypeJournal, Num: 9})
		if err != nil {
			t.Fatal(err)
		}
		fd := storage.FileDesc{Type: c.kind, Num: 1}
		w, err := f.Create(fd)
		if err != nil {
			t.Fatal(err)
		}
		if c.op == "close" {
			_, _ = w.Write([]byte("x"))
		}
		under.failOn(strings.Replace(c.op, "close", "sync", 1), c.kind, unix.EIO)
		switch c.op {
		case "write":
			_, err = w.Write([]byte("x"))
		case "sync":
			err = w.Sync()
		case "close":
			err = w.Close()
		case "meta":
			err = f.SetMeta(fd)
		case "create":
			_, err = f.Create(storage.FileDesc{Type: c.kind, Num: 2})
		}
		if !errors.Is(err, unix.EIO) {
			t.Fatalf("%s of %v: %v", c.op, c.kind, err)
		}
		under.fail.Store(nil)
		_, written := other.Write([]byte("y"))
		_, created := f.Create(storage.FileDesc{Type: storage.TypeTable, Num: 3})
		for _, err := range []error{written, created, f.SetMeta(fd)} {
			if failed := errors.Is(err, unix.EIO); failed != c.vital {
				t.Errorf("after %s of %v: %v", c.op, c.kind, err)
			}
		}
		if err := f.Remove(storage.FileDesc{Type: storage.TypeJournal, Num: 9}); err != nil {
			t.Errorf("after %s of %v: %v", c.op, c.kind, err)
		}
		if left, err := f.List(storage.TypeJournal); slices.Contains(left, storage.FileDesc{Type: storage.TypeJournal, Num: 9}) != c.vital || err != nil {
			t.Errorf("after %s of %v there are %v, %v", c.op, c.kind, left, err)
		}
	}
}

// copyOf copies the tables in dir, as they are while others have them open.
func copyOf(t *testing.T, dir string) (to string) {
	t.Helper()
	to = filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// A flush of leveldb's log that failed leaves in it what leveldb does not count, and
// whose number it gives again: what came behind that would be passed over.
func TestAFailedFlushOfALog(t *testing.T) {
	s, f, dir := onFaulty(t)
	put(t, s, "a", "1")
	f.failOn("sync", storage.TypeJournal, unix.EIO)
	if err := s.Forget(1); !errors.Is(err, unix.EIO) {
		t.Fatalf("a flush that failed: %v", err)
	}
	f.fail.Store(nil)
	put(t, s, "b", "2")
	applied := []string{"a", "b"}
	for _, k := range []string{"c", "d"} {
		if view, err := s.BeginCut().View(); err == nil {
			view.Release()
		}
		var b Batch
		b.Put([]byte(k), nil)
		if _, err := s.Apply(&b); err == nil {
			applied = append(applied, k)
		} else if !errors.Is(err, unix.EIO) {
			t.Errorf("applied: %v", err)
		}
	}
	again := open(t, copyOf(t, dir))
	for _, k := range applied {
		if _, there, err := again.Get([]byte(k)); !there || err != nil {
			t.Errorf("of %q, %s is there: %v, %v", applied, k, there, err)
		}
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); !errors.Is(err, unix.EIO) {
		t.Errorf("closed: %v", err)
	}
}

// overlayed applies rows, at once, that fill an overlay that goes past leveldb's log.
func overlayed(t *testing.T, s *Store, name string) {
	t.Helper()
	var rows []string
	for i := range 80 {
		rows = append(rows, fmt.Sprintf("%s-%02d", name, i), strings.Repeat("x", 1000))
	}
	put(t, s, rows...)
}

// begunInLog is a store whose leveldb has rows in its log alone, and which then cannot
// begin the next one: no transaction can begin.
func begunInLog(t *testing.T, reason error) (*Store, *faults, string) {
	s, f, dir := onFaulty(t)
	put(t, s, "a", "1")
	cutInTheEnd(t, s).Release()
	f.failOn("create", storage.TypeJournal, reason)
	overlayed(t, s, "b")
	if _, err := s.BeginCut().View(); !errors.Is(err, reason) {
		t.Fatalf("a cut: %v", err)
	}
	return s, f, dir
}

// A transaction that could not begin keeps leveldb's lock for good. When there is room
// again, the index goes on all the same.
func TestTransactionOnAFullDisk(t *testing.T) {
	s, f, dir := begunInLog(t, unix.ENOSPC)
	f.fail.Store(nil)
	view := cutInTheEnd(t, s)
	want := dump(t, view)
	view.Release()
	overlayed(t, s, "c")
	cutInTheEnd(t, s).Release()
	if !strings.Contains(want, "a=1 ") || !strings.Contains(want, "b-79=") {
		t.Errorf("it has %d bytes of rows", len(want))
	}
	want = dump(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	if got := dump(t, s); got != want {
		t.Errorf("opened again, it has %d bytes of rows, not %d", len(got), len(want))
	}
}

// An overlay that gets into leveldb's log, which then cannot begin the next one, was not
// lost: it is there, or moved again, when there is room. So it is whether leveldb had
// rows in that log or not, and if the overlay is more for leveldb than it takes itself.
func TestOverlayOnAFullDisk(t *testing.T) {
	for _, before := range []bool{false, true} {
		s, f, dir := onFaulty(t)
		if before {
			put(t, s, "a", "1")
			cutInTheEnd(t, s).Release()
		}
		var b Batch
		for i := range 640 {
			b.Put(fmt.Appendf(nil, "row%05d", i), make([]byte, 92))
		}
		if _, err := s.Apply(&b); err != nil {
			t.Fatal(err)
		}
		f.failOn("create", storage.TypeJournal, unix.ENOSPC)
		if _, err := s.BeginCut().View(); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("a cut: %v", err)
		}
		f.fail.Store(nil)
		cutInTheEnd(t, s).Release()
		put(t, s, "b", "2")
		want := dump(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir)
		if got := dump(t, s); got != want {
			t.Errorf("opened again, it has %d bytes of rows, not %d", len(got), len(want))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What is on its way from leveldb's log into a table is not lost if a transaction comes
// in between and the process is killed.
func TestTransactionBesideARotation(t *testing.T) {
	s, f, dir := onFaulty(t)
	var failed atomic.Bool
	fail := func(op string, kind storage.FileType) error {
		if op == "create" && kind == storage.TypeTable && failed.CompareAndSwap(false, true) {
			return unix.ENOSPC
		}
		return nil
	}
	f.fail.Store(&fail)
	var b Batch
	for i := range 640 { // more than leveldb's buffer: its log is full at once
		b.Put(fmt.Appendf(nil, "row%05d", i), make([]byte, 92))
	}
	if _, err := s.Apply(&b); err != nil {
		t.Fatal(err)
	}
	cutInTheEnd(t, s).Release()
	// Now and then leveldb begins the table only with the next one.
	for end := time.Now().Add(5 * time.Second); !failed.Load() && time.Now().Before(end); {
		runtime.Gosched()
	}
	overlayed(t, s, "b")
	cutInTheEnd(t, s).Release()
	want := dump(t, s)
	to := copyOf(t, dir)
	_ = s.Close()
	again := open(t, to)
	defer again.Close()
	if got := dump(t, again); got != want {
		t.Errorf("it has %d bytes of rows, not %d", len(got), len(want))
	}
}

// The store can be closed after that, and what reads from it works until then.
func TestTransactionOnABrokenDisk(t *testing.T) {
	s, f, dir := begunInLog(t, unix.EIO)
	f.fail.Store(nil)
	want := dump(t, s)
	if _, err := s.Apply(&Batch{}); !errors.Is(err, unix.EIO) {
		t.Errorf("applied: %v", err)
	}
	for what, err := range map[string]error{"forget": s.Forget(1), "compact": compact(s, 'b'), "close": s.Close()} {
		if !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s = open(t, dir)
	defer s.Close()
	if got := dump(t, s); got != want || s.Rebuilt() {
		t.Errorf("opened again, it has %d bytes of rows, not %d", len(got), len(want))
	}
}

// An index that cannot be opened for want of room when leveldb begins its manifest is
// there again when there is room; until then it can be read.
func TestManifestOnAFullDisk(t *testing.T) {
	for _, op := range []string{"write", "sync", "meta"} {
		f, opt := faultyOptions()
		dir := inIndexAlone(t, opt)
		f.failOn(op, storage.TypeManifest, unix.ENOSPC)
		for range 2 {
			s, err := OpenWith(dir, opt)
			if err != nil {
				t.Fatalf("%s: %v", op, err)
			}
			if v, _, err := s.Get([]byte("a")); string(v) != "1" || err != nil || s.Rebuilt() {
				t.Errorf("%s: a is %q, %v; rebuilt: %v", op, v, err, s.Rebuilt())
			}
			_ = s.Close()
		}
		f.fail.Store(nil)
		s, err := OpenWith(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		if v, _, err := s.Get([]byte("a")); string(v) != "1" || err != nil || s.Rebuilt() {
			t.Errorf("%s, with room again: a is %q, %v; rebuilt: %v", op, v, err, s.Rebuilt())
		}
		put(t, s, "c", "3")
		cutInTheEnd(t, s).Release()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// twoLogs is a store whose leveldb has begun another log, and written to it, before the
// table that the full one becomes was made.
func twoLogs(t *testing.T) (*Store, string) {
	s, f, dir := onFaulty(t)
	f.failOn("create", storage.TypeTable, unix.ENOSPC)
	for i := 0; len(logsIn(dir)) < 2; i++ {
		for j := range 10 {
			put(t, s, fmt.Sprintf("%03d-%02d", i, j), strings.Repeat("x", 1000))
		}
		cutInTheEnd(t, s).Release()
	}
	return s, dir
}

func logsIn(dir string) []string {
	names, _ := filepath.Glob(filepath.Join(dir, "index", "*.log"))
	return names
}

// On a disk without room the index can be read though it has two logs.
func TestTwoLogsOnAFullDisk(t *testing.T) {
	s, dir := twoLogs(t)
	want, had := dump(t, s), s.inDB
	f, opt := faultyOptions()
	f.failOn("create", storage.TypeTable, unix.ENOSPC)
	again, err := OpenWith(copyOf(t, dir), opt)
	if err != nil {
		t.Fatal(err)
	}
	if got := dump(t, again); got != want || again.inDB != had || !again.db.readOnly {
		t.Errorf("it has %d bytes of rows up to %d, not %d up to %d; to be read only: %v", len(got), again.inDB, len(want), had, again.db.readOnly)
	}
	_ = again.Close()
	_ = s.Close()
}

// Damage in a log behind which there is another one is none that power loss leaves.
func TestDamageInTheFirstOfTwoLogs(t *testing.T) {
	s, dir := twoLogs(t)
	want := dump(t, s)
	to := copyOf(t, dir)
	_ = s.Close()
	first, err := os.ReadFile(logsIn(to)[0])
	if err == nil {
		err = os.WriteFile(logsIn(to)[0], zeroed(first, len(first)/2, 100), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	again := open(t, to)
	defer again.Close()
	if got := dump(t, again); got != want {
		t.Errorf("it has %d bytes of rows, not %d", len(got), len(want))
	}
}

// Who reads does not wait for the flush of a log that is full.
func TestReadersDoNotWaitForALog(t *testing.T) {
	s, f, _ := onFaulty(t)
	put(t, s, "a", "1")
	cutInTheEnd(t, s).Release() // now there is something in the log
	var flushes atomic.Int32
	reads := func(op string, kind storage.FileType) error {
		if op != "sync" || kind != storage.TypeJournal {
			return nil
		}
		flushes.Add(1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _, _ = s.Get([]byte("nothing there"))
		}()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Error("it waits")
		}
		return nil
	}
	f.fail.Store(&reads)
	overlayed(t, s, "b")
	cutInTheEnd(t, s).Release()
	f.fail.Store(nil)
	if flushes.Load() == 0 {
		t.Error("no log was flushed")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A compaction that cannot be entered keeps the lock that a transaction is entered under.
// Who waits for the transaction is told, and the index goes on when there is room again.
func TestTransactionBehindACompaction(t *testing.T) {
	s, f, dir := onFaulty(t)
	overlayed(t, s, "b")
	s.flushes.Wait() // it is in tables, and leveldb's log is empty
	locked, waits := make(chan struct{}), make(chan struct{})
	var tables, records atomic.Int32
	fail := func(op string, kind storage.FileType) error {
		switch {
		case op == "write" && kind == storage.TypeManifest && records.Add(1) == 1:
			close(locked)
			<-waits
			return unix.ENOSPC
		case op == "sync" && kind == storage.TypeTable && records.Load() > 0 && tables.Add(1) == 2:
			close(waits) // that is the last table of the transaction
		}
		return nil
	}
	f.fail.Store(&fail)
	compacted := make(chan error, 1)
	s.Compact('b', func(err error) { compacted <- err })
	<-locked
	overlayed(t, s, "b") // moves in the background
	moved := make(chan struct{})
	go func() {
		defer close(moved)
		s.flushes.Wait()
	}()
	select {
	case err := <-compacted:
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("compacted: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the compaction does not end")
	}
	select {
	case <-moved:
	case <-time.After(time.Minute):
		t.Fatal("the overlay waits for ever")
	}
	f.fail.Store(nil)
	cutInTheEnd(t, s).Release()
	want := dump(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	if got := dump(t, s); got != want || !strings.Contains(want, "b-79=") {
		t.Errorf("opened again, it has %d bytes of rows, not %d", len(got), len(want))
	}
}

// A batch that changes a part of a value which cannot be read now is not applied at all,
// and hinders nothing; the next time it is.
func TestPatchOfWhatCannotBeRead(t *testing.T) {
	s, _, dir := onFaulty(t)
	overlayed(t, s, "b")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, opt := faultyOptions()
	s, err := OpenWith(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	f.failOn("read", storage.TypeTable, unix.EMFILE)
	var b Batch
	b.Put([]byte("first"), nil)
	b.Patch([]byte("b-00"), 0, []byte("new"))
	b.Patch([]byte("first"), 2, []byte("y"))
	b.Patch([]byte("first"), 1, []byte("x"))
	if _, err := s.Apply(&b); !errors.Is(err, unix.EMFILE) {
		t.Fatalf("applied: %v", err)
	}
	f.fail.Store(nil)
	if _, there, err := s.Get([]byte("first")); there || err != nil {
		t.Errorf("a part of it is there: %v", err)
	}
	cutInTheEnd(t, s).Release()
	again := open(t, copyOf(t, dir))
	if _, there, err := again.Get([]byte("first")); there || err != nil {
		t.Errorf("opened again, a part of it is there: %v", err)
	}
	_ = again.Close()
	if _, err := s.Apply(&b); err != nil {
		t.Error(err)
	}
	for _, s := range []*Store{s, open(t, copyOf(t, dir))} {
		if got := dump(t, s); !strings.Contains(got, "first=\x00xy") || !strings.Contains(got, "b-00=newx") {
			t.Errorf("it has %.200s", got)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Where no table could be begun for a moment, as the machine had no files left, changes
// are taken all the while, and the overlay moves when it has some again.
func TestNoFilesForAMoment(t *testing.T) {
	s, f, dir := onFaulty(t)
	f.failOn("create", storage.TypeTable, unix.EMFILE)
	overlayed(t, s, "b")
	for range 2 {
		if _, err := s.BeginCut().View(); !errors.Is(err, unix.EMFILE) {
			t.Fatalf("a cut: %v", err)
		}
	}
	put(t, s, "c", "3")
	f.fail.Store(nil)
	view := cutInTheEnd(t, s)
	want := dump(t, view)
	view.Release()
	put(t, s, "a", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	if got := dump(t, s); got != "a=1 "+want || !strings.Contains(want, "b-79=") || !strings.Contains(want, "c=3") {
		t.Errorf("opened again, it has %d bytes of rows, not %d", len(got), len(want))
	}
}

// times has what is done to files of some kinds fail with err, the first n times each.
func (f *faults) times(n int32, err error, what map[string]storage.FileType) {
	var met [4]atomic.Int32
	fail := func(op string, kind storage.FileType) error {
		if kind&what[op] != 0 && met[bits.TrailingZeros(uint(kind))].Add(1) <= n {
			return err
		}
		return nil
	}
	f.fail.Store(&fail)
}

// cutSometime takes a view, if not at once: leveldb waits before it tries again.
func cutSometime(t *testing.T, s *Store) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		view, err := s.BeginCut().View()
		switch {
		case err == nil:
			view.Release()
			return
		case !errors.Is(err, unix.EMFILE) || time.Now().After(end):
			t.Fatal(err)
		}
	}
}

// Wherever files are wanting for a moment, changes are taken all the while, and when there
// are some again, all of them get into the index.
func TestNoFilesAnywhere(t *testing.T) {
	const all = storage.TypeJournal | storage.TypeTable | storage.TypeManifest
	for _, what := range []map[string]storage.FileType{
		{"create": storage.TypeJournal}, {"create": storage.TypeTable}, {"create": all},
		{"create": storage.TypeJournal | storage.TypeManifest}, {"create": storage.TypeJournal | storage.TypeTable},
		{"create": storage.TypeJournal, "meta": storage.TypeManifest}, {"create": storage.TypeJournal, "open": all},
	} {
		for _, n := range []int32{1, 3} {
			t.Run(fmt.Sprint(what, n), func(t *testing.T) {
				t.Parallel()
				s, f, dir := onFaulty(t)
				f.times(n, unix.EMFILE, what)
				for i := range 4 {
					put(t, s, fmt.Sprint("a-", i), "1")
					cutSometime(t, s)
					overlayed(t, s, fmt.Sprint("b-", i))
					_ = s.Forget(1)
				}
				f.fail.Store(nil)
				cutInTheEnd(t, s).Release()
				want := dump(t, s)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				s = open(t, dir)
				defer s.Close()
				if got := dump(t, s); got != want || !strings.Contains(want, "a-3=1 b-0-00=") || !strings.Contains(want, "b-3-79=") {
					t.Errorf("opened again, it has %d bytes of rows, not %d", len(got), len(want))
				}
			})
		}
	}
}

// openFiles is how many files of an index this process has open.
func openFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if to, err := os.Readlink(name); err == nil && strings.HasPrefix(to, filepath.Join(dir, "index")) {
			n++
		}
	}
	return n
}

// An index that was given up keeps none of its files, however often.
func TestGivenUpKeepsNoFiles(t *testing.T) {
	s, f, dir := onFaulty(t)
	most := 0
	for i := range 20 {
		put(t, s, fmt.Sprint("a-", i), "1")
		cutInTheEnd(t, s).Release()
		f.failOn("create", storage.TypeJournal, unix.EMFILE)
		overlayed(t, s, "b")
		if _, err := s.BeginCut().View(); !errors.Is(err, unix.EMFILE) {
			t.Fatalf("a cut: %v", err)
		}
		f.fail.Store(nil)
		cutInTheEnd(t, s).Release()
		if n := openFiles(t, dir); i < 3 {
			most = max(most, n)
		} else if n > 2*most {
			t.Fatalf("after %d failures %d files are open, %d at first", i+1, n, most)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n := openFiles(t, dir); n > 0 {
		t.Errorf("in the end %d files are open", n)
	}
}

// A compaction that goes on and on, as rows are written all the while, holds nobody up: it
// ends with the store.
func TestCompactionUnderLoad(t *testing.T) {
	s, _, dir := onFaulty(t)
	for i := range 4 {
		overlayed(t, s, fmt.Sprint("b-", i))
	}
	ended := make(chan error, 1)
	s.Compact('b', func(err error) { ended <- err })
	for i := range 20 {
		overlayed(t, s, fmt.Sprint("b-", i))
		cutInTheEnd(t, s).Release()
	}
	want := dump(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	default:
		t.Error("it has not ended")
	}
	s = open(t, dir)
	defer s.Close()
	if got := dump(t, s); got != want {
		t.Errorf("opened again, it has %d bytes of rows, not %d", len(got), len(want))
	}
}

// An index that could not be opened anew, as there were no files, is there again for who
// reads when there are some, also if no change has to move.
func TestReadAfterNoFiles(t *testing.T) {
	for what, read := range map[string]func(s *Store) (there bool, err error){
		"get": func(s *Store) (there bool, err error) {
			_, there, err = s.Get([]byte("b-00"))
			return there, err
		},
		"scan": func(s *Store) (there bool, err error) {
			err = s.Scan([]byte("b-00"), []byte("b-01"), func(_, _ []byte) bool { there = true; return true })
			return there, err
		},
		"patch": func(s *Store) (there bool, err error) {
			var b Batch
			b.Patch([]byte("b-00"), 0, []byte("y"))
			_, err = s.Apply(&b)
			return err == nil, err
		},
	} {
		t.Run(what, func(t *testing.T) { readAfterNoFiles(t, read) })
	}
}

func readAfterNoFiles(t *testing.T, read func(s *Store) (there bool, err error)) {
	s, f, _ := onFaulty(t)
	overlayed(t, s, "b")
	put(t, s, "a", "1")
	cutInTheEnd(t, s).Release()
	fail := func(op string, kind storage.FileType) error {
		if op == "create" && kind == storage.TypeJournal || op == "open" && kind == storage.TypeManifest {
			return unix.EMFILE
		}
		return nil
	}
	f.fail.Store(&fail)
	overlayed(t, s, "c")
	for range 2 { // the first gives the index up
		if _, err := s.BeginCut().View(); !errors.Is(err, unix.EMFILE) {
			t.Fatalf("a cut: %v", err)
		}
	}
	s.flushes.Wait()
	f.fail.Store(nil)
	if _, err := read(s); err == nil {
		t.Fatal("the index is open")
	}
	s.flushes.Wait()
	if there, err := read(s); !there || err != nil {
		t.Errorf("it is there: %v, %v", there, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
