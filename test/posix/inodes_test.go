package posix

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInodeNumbers: a file, of whatever kind, keeps its number over mounts and crashes,
// and when it is written or renamed; all names of a file have the same one, and nothing
// else has. Listings tell the same numbers as stat does.
func TestInodeNumbers(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		for _, dir := range []string{"dir", "dir/sub", "other"} {
			must(t, os.Mkdir(d.path(dir), 0o755))
		}
		for i, size := range []int{0, 1, 600, 20_000, 3 << 20} {
			must(t, os.WriteFile(d.path(fmt.Sprintf("dir/sub/file %d", i)), bytes.Repeat([]byte("x"), size), 0o644))
		}
		must(t, os.Link(d.path("dir/sub/file 4"), d.path("dir/linked")))
		must(t, os.Link(d.path("dir/sub/file 2"), d.path("other/linked")))
		must(t, os.Symlink("sub", d.path("dir/symlink")))
		must(t, unix.Mkfifo(d.path("other/fifo"), 0o644))
		want := numbers(t, d.root)
		want.differ(t, map[string]string{"dir/linked": "dir/sub/file 4", "other/linked": "dir/sub/file 2"})
		seen := map[uint64]bool{}
		for _, n := range want {
			seen[n] = true
		}
		again := func(when string) {
			t.Helper()
			if got := numbers(t, d.root); !maps.Equal(got, want) {
				t.Fatalf("%s: %v; before: %v", when, got, want)
			}
		}
		move := func(from, to string) {
			t.Helper()
			must(t, os.Rename(d.path(from), d.path(to)))
			for path, n := range want {
				if rest, below := within(path, from); below {
					delete(want, path)
					want[to+rest] = n
				}
			}
		}
		for round := range 3 {
			again("at first")
			move("dir/sub/file 1", "moved")
			move("dir/sub", "other/sub")
			must(t, os.WriteFile(d.path("other/sub/file 3"), []byte("emptied and written"), 0o644))
			must(t, os.Truncate(d.path("other/linked"), 100_000))
			again("moved and written")
			d.remount()
			again("mounted again")
			d.Kill()
			d.start()
			again("started after a crash")
			name := fmt.Sprint("new ", round)
			must(t, os.WriteFile(d.path(name), nil, 0o644))
			n := numbers(t, d.root)[name]
			if seen[n] {
				t.Errorf("a new file has a number that was in use: %d", n)
			}
			seen[n], want[name] = true, n
			must(t, os.Remove(d.path(name)))
			delete(want, name)
			move("other/sub", "dir/sub")
			move("moved", "dir/sub/file 1")
		}
	})
	asUser(t)
}

// within reports whether a path is another one or below it, and what comes after that.
func within(path, top string) (rest string, yes bool) {
	if path == top {
		return "", true
	}
	if len(path) > len(top) && path[:len(top)+1] == top+"/" {
		return path[len(top):], true
	}
	return "", false
}

// inodeNumbers are those of a tree, by paths.
type inodeNumbers map[string]uint64

// numbers looks at a tree, and compares what its listings say with what stat does.
func numbers(t *testing.T, root string) inodeNumbers {
	t.Helper()
	out := inodeNumbers{}
	must(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		out[rel] = numberOf(t, path)
		if e.IsDir() {
			listedNumbers(t, path, path == root)
		}
		return nil
	}))
	return out
}

func numberOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Ino
}

// listedNumbers compares the numbers in a listing with those of stat. What lies above
// the root is no part of the drive.
func listedNumbers(t *testing.T, dir string, isRoot bool) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	for list := dirents(t, fd); len(list) > 0; list = dirents(t, fd) {
		for _, e := range list {
			if isRoot && e.Name == ".." {
				continue
			}
			if want := numberOf(t, filepath.Join(dir, e.Name)); e.Ino != want {
				t.Errorf("%s in %s is listed as %d, stat says %d", e.Name, dir, e.Ino, want)
			}
		}
	}
}

// differ checks that all numbers are distinct but those of a second name of a file.
func (n inodeNumbers) differ(t *testing.T, second map[string]string) {
	t.Helper()
	first := map[uint64]string{}
	for path, number := range n {
		if of, is := second[path]; is {
			if n[of] != number {
				t.Errorf("%s is %d, and %s is %d", path, number, of, n[of])
			}
			continue
		}
		if other, taken := first[number]; taken {
			t.Errorf("%s and %s have the number %d", path, other, number)
		}
		first[number] = path
	}
}
