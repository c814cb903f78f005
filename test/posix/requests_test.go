package posix

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"skep/test/served"
)

// TestRequests counts what an operation costs: every request is a way to the
// daemon and back. A count that grows is a drive that became slower.
//
// Before each operation the directories on the way are looked at, because the
// kernel asks again for the attributes of one that it changed.
func TestRequests(t *testing.T) {
	if os.Geteuid() == 0 && os.Getenv(unseenEnv) == "" {
		unseen(t)
		return
	}
	for _, passed := range []bool{true, false} {
		name := map[bool]string{true: "passed", false: "through"}[passed]
		t.Run(name, func(t *testing.T) {
			if passed && os.Geteuid() != 0 {
				t.Skip("passthrough needs root")
			}
			if passed && !served.LinuxFrom(6, 9) {
				t.Skip("this kernel passes no files through")
			}
			d := newDrive(t, config{Passthrough: passed, Trace: filepath.Join(t.TempDir(), "trace")})
			countRequests(t, d, passed)
			if served.LinuxFrom(6, 6) {
				countOfMany(t, d)
			}
		})
	}
}

// unseenEnv says that the test runs where nobody else looks.
const unseenEnv = "SKEP_POSIX_UNSEEN"

// unseen runs the calling test in a process with mounts of its own: on desktops,
// programs look into every mount that they see, and their requests count too.
func unseen(t *testing.T) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), unseenEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("with mounts of its own: %v", err)
	}
}

type counts = map[string]int

func countRequests(t *testing.T, d *drive, passed bool) {
	written := counts{"LOOKUP": 1, "CREATE": 1, "GETXATTR": 1, "WRITE": 1, "RELEASE": 1}
	over := counts{"OPEN": 1, "GETXATTR": 2, "WRITE": 1, "RELEASE": 1}
	if passed {
		delete(written, "WRITE")
		delete(over, "WRITE")
	}
	journal := counts{"LOOKUP": 1, "CREATE": 1, "WRITE": 4, "RELEASE": 1}
	if !served.LinuxFrom(6, 6) {
		journal["GETXATTR"], journal["WRITE"] = 1, 5 // cached as any other; what goes beyond a page is two
	}
	d.requests(func() {
		must(t, os.Mkdir(d.path("d"), 0o755))
		write(t, d.path("first"), unix.O_CREAT, 1) // the kernel asks about closing once
	})
	for _, tt := range []struct {
		what string
		do   func()
		want counts
	}{
		{"create, write, close", func() { write(t, d.path("a"), unix.O_CREAT, 1) }, written},
		{"stat after writing", func() { stat(t, d.path("a")) }, counts{"GETATTR": 1}},
		{"stat again", func() { stat(t, d.path("a")) }, counts{}},
		{"stat of nothing, twice", func() { inodeAt(d.path("no")); inodeAt(d.path("no")) }, counts{"LOOKUP": 1}},
		{"open, read, close", func() { read(t, d.path("a"), 1) }, counts{"OPEN": 1, "READ": 1, "RELEASE": 1}},
		{"open, read, close again", func() { read(t, d.path("a"), 1) }, counts{"OPEN": 1, "RELEASE": 1}},
		{"write over", func() { write(t, d.path("a"), unix.O_TRUNC, 1) }, over},
		{"write 1 MiB", func() { write(t, d.path("big"), unix.O_CREAT, 1<<20) }, written},
		{"read 1 MiB, just written", func() { read(t, d.path("big"), 1<<20) }, counts{"OPEN": 1, "RELEASE": 1}},
		{"list", func() { list(t, d.root) }, counts{"OPENDIR": 1, "READDIRPLUS": 1, "READDIR": 1}},
		{"list again", func() { list(t, d.root) }, counts{}},
		{"mkdir", func() { must(t, unix.Mkdir(d.path("e"), 0o755)) }, counts{"LOOKUP": 1, "MKDIR": 1}},
		{"list after a change", func() { list(t, d.root) }, counts{"READDIRPLUS": 1, "READDIR": 1}},
		{"rename", func() { must(t, unix.Rename(d.path("a"), d.path("d/a"))) }, counts{"LOOKUP": 1, "RENAME": 1}},
		{"unlink", func() { must(t, unix.Unlink(d.path("d/a"))) }, counts{"UNLINK": 1}},
		{"symlink", func() { must(t, unix.Symlink("x", d.path("l"))) }, counts{"LOOKUP": 1, "SYMLINK": 1}},
		{"readlink, twice", func() { readlink(t, d.path("l")); readlink(t, d.path("l")) }, counts{"READLINK": 1}},
		{"rollback journal", func() { writeJournal(t, d.path("db-journal")) }, journal},
		{"chmod", func() { must(t, unix.Chmod(d.path("big"), 0o600)) }, counts{"SETATTR": 1}},
	} {
		stat(t, d.root)
		stat(t, d.path("d"))
		got := d.requests(tt.do)
		t.Logf("%-26s %v", tt.what, got)
		if !maps.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.what, got, tt.want)
		}
	}
}

// countOfMany makes small files until one costs as little as one of many does. How
// many that takes depends on how fast they follow each other.
func countOfMany(t *testing.T, d *drive) {
	want := counts{"LOOKUP": 1, "CREATE": 1, "WRITE": 1, "RELEASE": 1}
	var got counts
	for i := range 200 {
		stat(t, d.root)
		got = d.requests(func() { write(t, d.path(fmt.Sprint("many", i)), unix.O_CREAT, 100) })
		if maps.Equal(got, want) {
			return
		}
	}
	t.Errorf("one of many small files: got %v, want %v", got, want)
}

func stat(t *testing.T, path string) { must(t, unix.Stat(path, new(unix.Stat_t))) }

func write(t *testing.T, path string, flags, n int) {
	fd, err := unix.Open(path, unix.O_WRONLY|flags, 0o644)
	must(t, err)
	if got, err := unix.Write(fd, make([]byte, n)); err != nil || got != n {
		t.Errorf("wrote %d, %v", got, err)
	}
	must(t, unix.Close(fd))
}

// writeJournal makes a rollback journal as sqlite does: a header, and of each page
// its number, its content and a checksum.
func writeJournal(t *testing.T, path string) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT, 0o644)
	must(t, err)
	at := int64(0)
	for _, n := range []int{512, 4, 4096, 4} {
		_, err := unix.Pwrite(fd, make([]byte, n), at)
		must(t, err)
		at += int64(n)
	}
	must(t, unix.Close(fd))
}

func read(t *testing.T, path string, n int) {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	must(t, err)
	if got, err := unix.Read(fd, make([]byte, n)); err != nil || got != n {
		t.Errorf("read %d, %v", got, err)
	}
	must(t, unix.Close(fd))
}

func list(t *testing.T, dir string) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	for len(getdents(t, fd)) > 0 {
	}
	must(t, unix.Close(fd))
}

func readlink(t *testing.T, path string) {
	_, err := unix.Readlink(path, make([]byte, 10))
	must(t, err)
}
