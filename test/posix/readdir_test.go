package posix

import (
	"fmt"
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestReadDirUnderChange lists 10,000 entries, or a million, while others come and
// go: every entry that is there all the time is listed once.
func TestReadDirUnderChange(t *testing.T) {
	total := 10_000
	if thorough() {
		total = 1_000_000
	}
	variants(t, func(t *testing.T, d *drive) {
		for i := range total {
			must(t, unix.Mknod(d.path(fmt.Sprintf("stays-%05d", i)), unix.S_IFREG|0o644, 0))
		}
		for i := range 500 {
			must(t, unix.Mknod(d.path(fmt.Sprintf("goes-%d", i)), unix.S_IFREG|0o644, 0))
		}
		fd, err := unix.Open(d.root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		defer unix.Close(fd)
		seen := map[string]int{}
		step := 0
		for {
			names := getdents(t, fd)
			if len(names) == 0 {
				break
			}
			for _, n := range names {
				seen[n]++
			}
			if step < 500 { // every piece of the listing meets a different directory
				must(t, unix.Unlink(d.path(fmt.Sprintf("goes-%d", step))))
				must(t, unix.Mknod(d.path(fmt.Sprintf("comes-%d", step)), unix.S_IFREG|0o644, 0))
				must(t, os.Rename(d.path(fmt.Sprintf("comes-%d", step)), d.path(fmt.Sprintf("came-%d", step))))
			}
			step++
		}
		for i := range total {
			if n := seen[fmt.Sprintf("stays-%05d", i)]; n != 1 {
				t.Fatalf("entry %d was listed %d times", i, n)
			}
		}
		for name, n := range seen {
			if n != 1 {
				t.Errorf("%s was listed %d times", name, n)
			}
		}
		if step < 10 {
			t.Errorf("the listing came in %d pieces only", step)
		}
		checkListing(t, d, total+500)
	})
}

// checkListing lists twice, once from what the kernel kept.
func checkListing(t *testing.T, d *drive, want int) {
	t.Helper()
	for range 2 {
		entries, err := os.ReadDir(d.root)
		if err != nil || len(entries) != want {
			t.Errorf("%d entries, %v, want %d", len(entries), err, want)
		}
	}
	must(t, os.WriteFile(d.path("one-more"), nil, 0o644))
	if entries, err := os.ReadDir(d.root); err != nil || len(entries) != want+1 {
		t.Errorf("after one more: %d entries, %v, want %d", len(entries), err, want+1)
	}
}

// getdents reads a piece of a directory.
func getdents(t *testing.T, fd int) []string {
	t.Helper()
	var names []string
	for _, e := range dirents(t, fd) {
		names = append(names, e.Name)
	}
	return names
}

// dirents is getdents with all that is told of the entries.
func dirents(t *testing.T, fd int) []fuse.DirEntry {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.ReadDirent(fd, buf)
	must(t, err)
	var list []fuse.DirEntry
	for rest := buf[:n]; len(rest) > 0; {
		var e fuse.DirEntry
		rest = rest[e.Parse(rest):]
		list = append(list, e)
	}
	return list
}

// TestSeekDir goes back in a listing to where an entry was, as seekdir does with
// what telldir told: what follows is what followed it, but for what was removed
// since, and for what is new.
func TestSeekDir(t *testing.T) {
	const total = 3000
	variants(t, func(t *testing.T, d *drive) {
		for i := range total {
			must(t, unix.Mknod(d.path(fmt.Sprintf("entry-%04d", i)), unix.S_IFREG|0o644, 0))
		}
		fd, err := unix.Open(d.root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		defer unix.Close(fd)
		var names []string
		var after []int64 // where the listing stands behind each
		for {
			list := dirents(t, fd)
			if len(list) == 0 {
				break
			}
			for _, e := range list {
				names, after = append(names, e.Name), append(after, int64(e.Off))
			}
		}
		if len(names) != total+2 {
			t.Fatalf("%d names", len(names))
		}
		for i := 10; i+1 < len(names); i += 97 {
			must(t, unix.Unlink(d.path(names[i])))
			must(t, unix.Mknod(d.path(fmt.Sprintf("new-%d", i)), unix.S_IFREG|0o644, 0))
			_, err := unix.Seek(fd, after[i], unix.SEEK_SET)
			must(t, err)
			if list := dirents(t, fd); len(list) == 0 || list[0].Name != names[i+1] {
				t.Fatalf("behind %s comes %+v, not %s", names[i], list, names[i+1])
			}
		}
		_, err = unix.Seek(fd, 0, unix.SEEK_SET)
		must(t, err)
		if list := dirents(t, fd); len(list) == 0 || list[0].Name != "." {
			t.Errorf("the beginning is %+v", list)
		}
	})
}
