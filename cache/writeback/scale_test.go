package writeback_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"skep/cache/tree"
	"skep/test/memswarm"
)

// operation is something done on a drive, with what it costs.
type operation struct {
	name  string
	took  time.Duration
	reads int64 // rows of the tables
}

// perDir is how many files a directory of the drive to be measured has, and how
// many directories one above those.
const perDir = 100

// fill makes files under top, a hundred to a directory, in two levels.
func (d *device) fill(files int) {
	d.t.Helper()
	top := must(d.tree.Mkdir(ctx, tree.Root, "top", 0o755, tree.Owner{})).Ino
	var upper, dir tree.Ino
	for i := range files {
		if i%(perDir*perDir) == 0 {
			upper = must(d.tree.Mkdir(ctx, top, fmt.Sprint("u", i/(perDir*perDir)), 0o755, tree.Owner{})).Ino
		}
		if i%perDir == 0 {
			dir = must(d.tree.Mkdir(ctx, upper, fmt.Sprint("d", i/perDir%perDir), 0o755, tree.Owner{})).Ino
		}
		f, _, err := d.tree.Create(ctx, dir, fmt.Sprint("f", i%perDir), 0o644, os.O_WRONLY, tree.Owner{})
		if err == nil {
			_, err = f.WriteAt(ctx, fmt.Append(nil, i), 0, false)
			f.Release()
		}
		if err != nil {
			d.t.Fatal(err)
		}
	}
}

// measureDrive fills a drive, commits it, starts again and measures what one
// does then.
func measureDrive(t *testing.T, files int) (steps []operation, memory uint64) {
	d := newDevice(t, memswarm.New(9, 4, 7))
	d.fill(files)
	d.sync()
	d.close()
	measure := func(name string, fn func()) {
		var before int64
		if d.st != nil {
			before = d.st.Reads()
		}
		start := time.Now()
		fn()
		steps = append(steps, operation{name, time.Since(start), d.st.Reads() - before})
	}
	d.st = nil
	measure("start", func() { d.open(nil) })
	last := fmt.Sprintf("top/u%d/d%d", (files-1)/(perDir*perDir), (files-1)/perDir%perDir)
	find := func(path string) tree.Ino { return must(d.tree.Find(ctx, path)).Ino }
	measure("ls", func() {
		n := 0
		if err := d.tree.ReadDir(ctx, find(last), 0, func(tree.DirEntry) bool { n++; return true }); err != nil || n == 0 {
			t.Fatal(n, err)
		}
	})
	measure("stat", func() { find(last + "/f7") })
	measure("create", func() { d.put(last+"/new", []byte("new")) })
	measure("rename of top", func() {
		if err := d.tree.Rename(ctx, tree.Root, "top", tree.Root, "other", 0); err != nil {
			t.Fatal(err)
		}
	})
	measure("commit", d.sync)
	measure("commit of nothing else", func() {
		d.put("small", []byte("small"))
		d.sync()
	})
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return steps, m.HeapInuse
}

// What one does on a drive costs the same however large it is: counted in rows
// of the tables, not in seconds.
func TestWorkDoesNotGrow(t *testing.T) {
	small, _ := measureDrive(t, 2*perDir)
	large, _ := measureDrive(t, 20*perDir)
	for i, s := range small {
		l := large[i]
		t.Logf("%-24s %5d rows of %d files, %5d of %d", s.name, s.reads, 2*perDir, l.reads, 20*perDir)
		if l.reads > s.reads+s.reads/4+16 {
			t.Errorf("%s: reads %d rows on a drive of %d files, %d on one of %d",
				s.name, s.reads, 2*perDir, l.reads, 20*perDir)
		}
	}
}

// A commit looks at the packs that changed, not at all that there are.
func TestCommitLooksAtFewPacks(t *testing.T) {
	d := &device{t: t, dir: t.TempDir(), swarm: memswarm.New(9, 4, 7), class: 21}
	d.open(newDrive)
	t.Cleanup(d.close)
	grow := func(from, to int) (rows int64, packs int) {
		for i := from; i < to; i++ {
			d.put(fmt.Sprintf("d%d/f%d", i%4, i), random(uint64(i), 1<<20))
		}
		d.sync()
		d.put("small", fmt.Append(nil, to))
		before := d.st.Reads()
		d.sync()
		return d.st.Reads() - before, len(d.swarm.Packs())
	}
	few, fewPacks := grow(0, 4)
	many, manyPacks := grow(4, 80)
	t.Logf("%d rows with %d packs, %d with %d", few, fewPacks, many, manyPacks)
	if manyPacks < 4*fewPacks {
		t.Fatal("the test does not make packs")
	}
	if many > few+few/4+16 {
		t.Errorf("a commit reads %d rows with %d packs, %d with %d", few, fewPacks, many, manyPacks)
	}
}

// The curve from a thousand files to a million, or as many as SKEP_SCALE says;
// make scale.
func TestScale(t *testing.T) {
	most, err := strconv.Atoi(os.Getenv("SKEP_SCALE"))
	if err != nil {
		t.Skip("takes minutes: set SKEP_SCALE to the number of files, or make scale")
	}
	for files := 1000; files <= most; files *= 10 {
		steps, memory := measureDrive(t, files)
		fmt.Printf("%d files, %d MiB of heap with all that holders have\n", files, memory>>20)
		for _, s := range steps {
			fmt.Printf("    %-24s %10.2f ms %8d rows\n", s.name, float64(s.took)/1e6, s.reads)
		}
	}
}

// TestLargeDirectory: a directory is listed page by page while it changes; what
// stays is listed once, what comes or goes meanwhile once at most; and a small
// change of it costs as much as one of a small directory. With SKEP_SCALE, as
// make scale sets it, it has that many entries.
func TestLargeDirectory(t *testing.T) {
	entries := 20_000
	if testing.Short() {
		entries = 3_000
	}
	if n, err := strconv.Atoi(os.Getenv("SKEP_SCALE")); err == nil {
		entries = n
	}
	d := newDevice(t, memswarm.New(9, 4, 7))
	d.timed("fill", func() {
		dir := must(d.tree.Mkdir(ctx, tree.Root, "large", 0o755, tree.Owner{})).Ino
		for i := range entries {
			f, _, err := d.tree.Create(ctx, dir, fmt.Sprint("f", i), 0o644, os.O_WRONLY, tree.Owner{})
			if err != nil {
				t.Fatal(err)
			}
			f.Release()
		}
	})
	d.timed("commit", d.sync)
	d.close()
	d.timed("start", func() { d.open(nil) })
	dir := must(d.tree.Find(ctx, "large")).Ino
	d.timed("list", func() { d.listWhileItChanges(dir, entries) })
	d.timed("commit", d.sync)
	before := d.st.Reads()
	d.timed("create", func() { d.put("large/one more", nil) })
	d.timed("commit of that", d.sync)
	if n := d.st.Reads() - before; n > 2000 {
		t.Errorf("a file more cost %d rows", n)
	}
}

// timed does something and tells how long it took.
func (d *device) timed(what string, do func()) {
	begin := time.Now()
	do()
	d.t.Logf("%-16s %10.1f ms", what, float64(time.Since(begin))/1e6)
}

// listWhileItChanges lists a directory with so many files f0, f1, and so on. Between
// two pages one of these goes, another gets another name, and a new one comes.
func (d *device) listWhileItChanges(dir tree.Ino, entries int) {
	d.t.Helper()
	const page = 1000
	seen := map[string]int{}
	changed := map[string]bool{".": true, "..": true}
	for cookie, n := uint64(0), page; n == page; {
		n = 0
		err := d.tree.ReadDir(ctx, dir, cookie, func(e tree.DirEntry) bool {
			seen[e.Name]++
			cookie = e.Cookie
			n++
			return n < page
		})
		gone, old, name := fmt.Sprint("f", len(changed)*7%entries), fmt.Sprint("f", len(changed)*11%entries), fmt.Sprint("new", len(changed))
		if err == nil && !changed[gone] && !changed[old] && gone != old {
			err = errors.Join(d.tree.Unlink(ctx, dir, gone), d.tree.Rename(ctx, dir, old, dir, "was "+old, 0))
			changed[gone], changed[old], changed["was "+old] = true, true, true
		}
		if err != nil {
			d.t.Fatal(err)
		}
		d.put("large/"+name, nil)
		changed[name] = true
	}
	for name, n := range seen {
		if n > 1 {
			d.t.Errorf("%s was listed %d times", name, n)
		}
	}
	for i := range entries {
		if name := fmt.Sprint("f", i); seen[name] == 0 && !changed[name] {
			d.t.Errorf("%s was not listed", name)
		}
	}
}
