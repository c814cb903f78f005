package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// workload is one line of the table.
type workload struct {
	name string
	unit string  // what is counted, a second; "s": how long it takes as a whole
	per  float64 // units that make one of the figure: 1e6 bytes for MB/s
	// large workloads run programs over whole trees: fewer rounds.
	large bool
	slow  bool   // left out of quick runs
	needs string // the workload that makes what this one works on
	// goals of the ratios to other systems, of the drive mounted by root and by an
	// ordinary user.
	goals, userGoals []goal
	// do does it in a directory and counts what it did. Only what lies between
	// begin and end of the watch counts.
	do func(p *place, w *watch) (count float64, err error)
}

// goal is what a figure is to be: so many times that of another system.
type goal struct {
	of         string
	least, aim float64
}

var (
	passed    = []goal{{"bare", 0.85, 0.95}}
	through   = []goal{{"gocryptfs", 2, 4}}
	unflushed = []goal{{"gocryptfs", 2, 4}, {"memory", 0.8, 1}} // through the daemon, too
	requests  = []goal{{"memory", 0.8, 1.5}}
	database  = []goal{{"bare", 0.6, 0.95}}
)

// place is where and on what a workload works.
type place struct {
	ctx   context.Context
	dir   string // on the system that is measured
	scale scale
	tree  string // the tree of many files, on the disk
	tar   string // the same as an archive
}

func (p *place) path(elem ...string) string {
	return filepath.Join(append([]string{p.dir}, elem...)...)
}

// scale is how much a workload does.
type scale struct {
	Bytes   int64 // of the large file
	Reads   int   // of 4 KiB at random
	Writes  int   // the same
	Fsyncs  int   // writes of 4 KiB with fsync
	Files   int   // small files
	Commits int   // transactions
}

var (
	whole = scale{Bytes: 256 << 20, Reads: 50_000, Writes: 10_000, Fsyncs: 300, Files: 3000, Commits: 1000}
	quick = scale{Bytes: 64 << 20, Reads: 10_000, Writes: 2000, Fsyncs: 50, Files: 1000, Commits: 200}
)

// watch measures time and the processor time of everybody involved.
type watch struct {
	server  int // the process that serves the system; 0: none
	started time.Time
	elapsed time.Duration
	cpu     time.Duration
}

func (w *watch) begin() { w.started, w.cpu = time.Now(), -w.spent() }

func (w *watch) end() {
	w.elapsed = time.Since(w.started)
	w.cpu += w.spent()
}

// spent is the processor time of this process, its children and the server.
func (w *watch) spent() time.Duration {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if unix.Getrusage(who, &r) == nil {
			sum += time.Duration(unix.TimevalToNsec(r.Utime) + unix.TimevalToNsec(r.Stime))
		}
	}
	if w.server > 0 {
		const wholeProcess = 2 // the clock of a process is named by its number
		var t unix.Timespec
		if unix.ClockGettime(int32(^w.server<<3|wholeProcess), &t) == nil {
			sum += time.Duration(t.Nano())
		}
	}
	return sum
}

// timed measures f as a whole.
func (w *watch) timed(f func() error) error {
	w.begin()
	defer w.end()
	return f()
}

// workloads are all lines of the table, in the order in which they build on
// each other.
var workloads = []workload{
	{name: "sequential write + fsync", unit: "MB", per: 1e6, goals: passed, userGoals: through, do: sequentialWrite},
	{name: "sequential write", unit: "MB", per: 1e6, goals: passed, userGoals: unflushed, do: writeUnflushed},
	{name: "sequential read, warm", unit: "MB", per: 1e6, goals: passed, userGoals: unflushed, needs: "sequential write + fsync", do: sequentialRead},
	{name: "random 4 KiB read, warm", unit: "op", per: 1, goals: passed, userGoals: unflushed, needs: "sequential write + fsync", do: randomRead},
	{name: "write again in place", unit: "MB", per: 1e6, goals: unflushed, userGoals: unflushed, needs: "sequential write + fsync", do: writeAgain},
	{name: "random 4 KiB write", unit: "op", per: 1, goals: unflushed, userGoals: unflushed, needs: "sequential write + fsync", do: randomWrite(notFlushed)},
	{name: "random 4 KiB write, fsync at end", unit: "op", per: 1, goals: through, userGoals: through, needs: "sequential write + fsync", do: randomWrite((*os.File).Sync)},
	{name: "4 KiB write + fsync each", unit: "op", per: 1, goals: through, userGoals: through, needs: "sequential write + fsync", do: writeFsync},
	{name: "create + write 4 KiB + close", unit: "file", per: 1, goals: requests, userGoals: requests, do: createFiles},
	{name: "stat, warm", unit: "file", per: 1, goals: requests, userGoals: requests, needs: "create + write 4 KiB + close", do: statFiles},
	{name: "read 4 KiB files, warm", unit: "file", per: 1, goals: requests, userGoals: requests, needs: "create + write 4 KiB + close", do: readFiles},
	{name: "list changed directories", unit: "name", per: 1, goals: requests, userGoals: requests, needs: "create + write 4 KiB + close", do: listDirs},
	{name: "rename", unit: "file", per: 1, goals: requests, userGoals: requests, needs: "create + write 4 KiB + close", do: renameFiles},
	{name: "unlink", unit: "file", per: 1, goals: requests, userGoals: requests, needs: "rename", do: unlinkFiles},
	{name: "sqlite, WAL", unit: "commit", per: 1, goals: database, userGoals: database, do: sqlite("wal")},
	{name: "sqlite, rollback journal", unit: "commit", per: 1, goals: database, userGoals: database, do: sqlite("delete")},
	{name: "rsync -a of a tree", unit: "s", large: true, goals: requests, userGoals: requests, do: rsync},
	{name: "rsync -a again", unit: "s", large: true, goals: requests, userGoals: requests, needs: "rsync -a of a tree", do: rsync},
	{name: "tar x", unit: "s", large: true, goals: requests, userGoals: requests, do: untar},
	{name: "git init, add, commit", unit: "s", large: true, goals: requests, userGoals: requests, needs: "rsync -a of a tree", do: gitCommit},
	{name: "git status", unit: "s", large: true, goals: requests, userGoals: requests, needs: "git init, add, commit", do: gitStatus},
	{name: "go build in the tree", unit: "s", large: true, slow: true, goals: requests, userGoals: requests, needs: "rsync -a of a tree", do: goBuild},
}

const block = 4096

func sequentialWrite(p *place, w *watch) (float64, error) {
	return float64(p.scale.Bytes), w.timed(func() error {
		return writeFile(p.path("large"), os.O_CREATE|os.O_TRUNC, p.scale.Bytes, (*os.File).Sync)
	})
}

// notFlushed ends the writing of a file.
func notFlushed(*os.File) error { return nil }

// writeUnflushed makes a file that is gone before it is on the disk.
func writeUnflushed(p *place, w *watch) (float64, error) {
	err := w.timed(func() error {
		return writeFile(p.path("unflushed"), os.O_CREATE|os.O_TRUNC, p.scale.Bytes, notFlushed)
	})
	return float64(p.scale.Bytes), errors.Join(err, os.Remove(p.path("unflushed")))
}

func writeAgain(p *place, w *watch) (float64, error) {
	return float64(p.scale.Bytes), w.timed(func() error { return writeFile(p.path("large"), 0, p.scale.Bytes, notFlushed) })
}

func sequentialRead(p *place, w *watch) (float64, error) {
	if err := readFile(p.path("large")); err != nil {
		return 0, err
	}
	return float64(p.scale.Bytes), w.timed(func() error { return readFile(p.path("large")) })
}

// onLarge times calls of op at places of the large file.
func onLarge(p *place, w *watch, flags, n int, op func(f *os.File, off int64) error, end func(*os.File) error) (float64, error) {
	f, err := os.OpenFile(p.path("large"), flags, 0)
	if err != nil {
		return 0, err
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	err = w.timed(func() error {
		for range n {
			if err := op(f, rnd.Int64N(p.scale.Bytes/block)*block); err != nil {
				return err
			}
		}
		return end(f)
	})
	return float64(n), errors.Join(err, f.Close())
}

func randomRead(p *place, w *watch) (float64, error) {
	buf := make([]byte, block)
	return onLarge(p, w, os.O_RDONLY, p.scale.Reads, func(f *os.File, off int64) error {
		_, err := f.ReadAt(buf, off)
		return err
	}, func(*os.File) error { return nil })
}

func randomWrite(end func(*os.File) error) func(p *place, w *watch) (float64, error) {
	return func(p *place, w *watch) (float64, error) {
		buf := make([]byte, block)
		return onLarge(p, w, os.O_RDWR, p.scale.Writes, func(f *os.File, off int64) error {
			_, err := f.WriteAt(buf, off)
			return err
		}, end)
	}
}

func writeFsync(p *place, w *watch) (float64, error) {
	buf := make([]byte, block)
	return onLarge(p, w, os.O_RDWR, p.scale.Fsyncs, func(f *os.File, off int64) error {
		if _, err := f.WriteAt(buf, off); err != nil {
			return err
		}
		return f.Sync()
	}, func(*os.File) error { return nil })
}

// dirs is over how many directories the small files are spread.
const dirs = 10

// files calls f for each small file.
func (p *place) files(f func(path string) error) (float64, error) {
	for i := range p.scale.Files {
		if err := f(p.path("small", fmt.Sprint(i%dirs), fmt.Sprint("file-", i))); err != nil {
			return 0, err
		}
	}
	return float64(p.scale.Files), nil
}

// timedFiles times f over all small files.
func (p *place) timedFiles(w *watch, f func(path string) error) (n float64, err error) {
	err = w.timed(func() error {
		n, err = p.files(f)
		return err
	})
	return n, err
}

func createFiles(p *place, w *watch) (float64, error) {
	for i := range dirs {
		if err := os.MkdirAll(p.path("small", fmt.Sprint(i)), 0o755); err != nil {
			return 0, err
		}
	}
	buf := make([]byte, block)
	return p.timedFiles(w, func(path string) error { return os.WriteFile(path, buf, 0o644) })
}

func statFile(path string) error { return unix.Stat(path, new(unix.Stat_t)) }

// statFiles looks three times, after everybody has seen the files once.
func statFiles(p *place, w *watch) (float64, error) {
	if _, err := p.files(statFile); err != nil {
		return 0, err
	}
	const times = 3
	n, err := p.timedFiles(w, func(path string) error {
		return errors.Join(statFile(path), statFile(path), statFile(path))
	})
	return times * n, err
}

func readFiles(p *place, w *watch) (float64, error) {
	buf := make([]byte, block)
	read := func(path string) error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		_, err = unix.Read(fd, buf)
		return errors.Join(err, unix.Close(fd))
	}
	if _, err := p.files(read); err != nil {
		return 0, err
	}
	return p.timedFiles(w, read)
}

// listDirs lists directories that changed since they were listed last.
func listDirs(p *place, w *watch) (float64, error) {
	for i := range dirs {
		if err := os.WriteFile(p.path("small", fmt.Sprint(i), "new"), nil, 0o644); err != nil {
			return 0, err
		}
	}
	var n int
	err := w.timed(func() error {
		for i := range dirs {
			d, err := os.Open(p.path("small", fmt.Sprint(i)))
			if err != nil {
				return err
			}
			names, err := d.Readdirnames(-1)
			if n += len(names); errors.Join(err, d.Close()) != nil {
				return err
			}
		}
		return nil
	})
	return float64(n), err
}

func renameFiles(p *place, w *watch) (float64, error) {
	return p.timedFiles(w, func(path string) error { return unix.Rename(path, path+"-renamed") })
}

func unlinkFiles(p *place, w *watch) (float64, error) {
	return p.timedFiles(w, func(path string) error { return unix.Unlink(path + "-renamed") })
}

// program runs a program in the place.
func (p *place) program(name string, argv ...string) error {
	cmd := exec.CommandContext(p.ctx, name, argv...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "HOME="+p.dir, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GOCACHE="+p.path("go-cache"), "GOPATH="+p.path("go-path"), "GOFLAGS=", "GOTOOLCHAIN=local", "GOTELEMETRY=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// sqlite commits one row after the other.
func sqlite(mode string) func(p *place, w *watch) (float64, error) {
	return func(p *place, w *watch) (float64, error) {
		db := p.path("db-" + mode)
		settings := "pragma journal_mode=" + mode + "; pragma synchronous=full;"
		if err := p.program("sqlite3", db, settings+"create table t(a integer primary key, b text);"); err != nil {
			return 0, err
		}
		insert := strings.Repeat("insert into t(b) values(hex(randomblob(50)));\n", p.scale.Commits)
		return float64(p.scale.Commits), w.timed(func() error { return p.program("sqlite3", db, settings+insert) })
	}
}

func rsync(p *place, w *watch) (float64, error) {
	return 1, w.timed(func() error { return p.program("rsync", "-a", p.tree+"/", p.path("tree")) })
}

func untar(p *place, w *watch) (float64, error) {
	if err := os.Mkdir(p.path("untar"), 0o755); err != nil {
		return 0, err
	}
	return 1, w.timed(func() error { return p.program("tar", "xf", p.tar, "-C", p.path("untar")) })
}

func gitCommit(p *place, w *watch) (float64, error) {
	git := func(argv ...string) error {
		return p.program("git", append([]string{"-C", p.path("tree"), "-c", "user.name=a", "-c", "user.email=a@example.org",
			"-c", "gc.auto=0"}, argv...)...)
	}
	return 1, w.timed(func() error {
		return errors.Join(git("init", "-q"), git("add", "."), git("commit", "-qm", "all"))
	})
}

func gitStatus(p *place, w *watch) (float64, error) {
	return 1, w.timed(func() error { return p.program("git", "-C", p.path("tree"), "status", "--short") })
}

// goBuild compiles a part of Go's library from its sources in the tree, with the
// compiler's cache in the place, too.
func goBuild(p *place, w *watch) (float64, error) {
	out, err := exec.CommandContext(p.ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return 0, err
	}
	root := p.path("goroot")
	if err := os.Mkdir(root, 0o755); err != nil {
		return 0, err
	}
	for _, name := range []string{"bin", "pkg", "go.env", "VERSION"} {
		if err := os.Symlink(filepath.Join(strings.TrimSpace(string(out)), name), filepath.Join(root, name)); err != nil {
			return 0, err
		}
	}
	if err := os.Rename(p.path("tree"), filepath.Join(root, "src")); err != nil {
		return 0, err
	}
	return 1, w.timed(func() error {
		return p.program("env", "GOROOT="+root, filepath.Join(root, "bin", "go"), "build", "-C", filepath.Join(root, "src"),
			"go/format", "encoding/json", "compress/gzip")
	})
}

func writeFile(path string, flags int, n int64, end func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_RDWR|flags, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for rnd := rand.NewChaCha8([32]byte{}); n > 0; n -= int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), n)]
		_, _ = rnd.Read(buf[:min(len(buf), block)]) // no two blocks are the same
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return end(f)
}

func readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return err
}
