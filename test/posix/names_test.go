package posix

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestErrnos is a table of what each call answers in each situation. All of it
// happens in a directory that holds a file "f", an empty directory "d", a full
// one "full", and a symbolic link "l" to nowhere.
func TestErrnos(t *testing.T) {
	long := strings.Repeat("n", 256)
	open := func(flags int, perm uint32) func(string) error {
		return func(p string) error {
			fd, err := unix.Open(p, flags, perm)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
	}
	mkdir := func(p string) error { return unix.Mkdir(p, 0o755) }
	stat := func(p string) error { return unix.Lstat(p, new(unix.Stat_t)) }
	table := []struct {
		name string
		path string
		call func(string) error
		want error
	}{
		{"stat of nothing", "no", stat, unix.ENOENT},
		{"stat below a file", "f/x", stat, unix.ENOTDIR},
		{"stat of a long name", long, stat, unix.ENAMETOOLONG},
		{"stat of the longest name", long[:255], stat, unix.ENOENT},
		{"open of nothing", "no", open(unix.O_RDONLY, 0), unix.ENOENT},
		{"open through a loose link", "l", open(unix.O_RDONLY, 0), unix.ENOENT},
		{"open of a link itself", "l", open(unix.O_RDONLY|unix.O_NOFOLLOW, 0), unix.ELOOP},
		{"write to a directory", "d", open(unix.O_WRONLY, 0), unix.EISDIR},
		{"file as a directory", "f", open(unix.O_RDONLY|unix.O_DIRECTORY, 0), unix.ENOTDIR},
		{"create over a file", "f", open(unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644), unix.EEXIST},
		{"create over a directory", "d", open(unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644), unix.EEXIST},
		{"create over a link", "l", open(unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644), unix.EEXIST},
		{"create a long name", long, open(unix.O_CREAT|unix.O_WRONLY, 0o644), unix.ENAMETOOLONG},
		{"create in nothing", "no/x", open(unix.O_CREAT|unix.O_WRONLY, 0o644), unix.ENOENT},
		{"open what is there with O_CREAT", "f", open(unix.O_CREAT|unix.O_RDWR, 0o644), nil},
		{"mkdir over a file", "f", mkdir, unix.EEXIST},
		{"mkdir in nothing", "no/x", mkdir, unix.ENOENT},
		{"mkdir of a long name", long, mkdir, unix.ENAMETOOLONG},
		{"rmdir of nothing", "no", unix.Rmdir, unix.ENOENT},
		{"rmdir of a file", "f", unix.Rmdir, unix.ENOTDIR},
		{"rmdir of a full directory", "full", unix.Rmdir, unix.ENOTEMPTY},
		{"rmdir of dot", "d/.", unix.Rmdir, unix.EINVAL},
		{"unlink of nothing", "no", unix.Unlink, unix.ENOENT},
		{"unlink of a directory", "d", unix.Unlink, unix.EISDIR},
		{"truncate of a directory", "d", func(p string) error { return unix.Truncate(p, 0) }, unix.EISDIR},
		{"truncate below zero", "f", func(p string) error { return unix.Truncate(p, -1) }, unix.EINVAL},
		{"readlink of a file", "f", func(p string) error { _, err := unix.Readlink(p, make([]byte, 9)); return err }, unix.EINVAL},
		{"link over a file", "f", func(p string) error { return unix.Link(p, p) }, unix.EEXIST},
		{"link of a directory", "d", func(p string) error { return unix.Link(p, p+"2") }, unix.EPERM},
		{"link of nothing", "no", func(p string) error { return unix.Link(p, p+"2") }, unix.ENOENT},
		{"symlink over a file", "f", func(p string) error { return unix.Symlink("x", p) }, unix.EEXIST},
		{"rename of nothing", "no", func(p string) error { return unix.Rename(p, p+"2") }, unix.ENOENT},
		{"rename below itself", "d", func(p string) error { return unix.Rename(p, p+"/x") }, unix.EINVAL},
		{"ioctl", "f", func(p string) error {
			fd, err := unix.Open(p, unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			_, err = unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
			return err
		}, unix.ENOTTY},
	}
	variants(t, func(t *testing.T, d *drive) {
		furnish(t, d)
		for _, tt := range table {
			if err := tt.call(d.root + "/" + tt.path); !errors.Is(err, tt.want) {
				t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
			}
		}
	})
	asUser(t)
}

func furnish(t *testing.T, d *drive) {
	t.Helper()
	must(t, os.WriteFile(d.path("f"), []byte("content"), 0o644))
	must(t, os.MkdirAll(d.path("full/sub"), 0o755))
	must(t, os.Mkdir(d.path("d"), 0o755))
	must(t, os.Symlink("nowhere", d.path("l")))
}

// TestRename is a table of what renameat2 does with each kind of target.
func TestRename(t *testing.T) {
	for _, tt := range []struct {
		from, to string
		flags    uint
		want     error
	}{
		{"f", "new", 0, nil},
		{"f", "g", 0, nil},
		{"f", "d", 0, unix.EISDIR},
		{"d", "f", 0, unix.ENOTDIR},
		{"full", "d", 0, nil},
		{"d", "full", 0, unix.ENOTEMPTY},
		{"f", "g", unix.RENAME_NOREPLACE, unix.EEXIST},
		{"f", "new", unix.RENAME_NOREPLACE, nil},
		{"f", "g", unix.RENAME_EXCHANGE, nil},
		{"f", "full", unix.RENAME_EXCHANGE, nil},
		{"f", "new", unix.RENAME_EXCHANGE, unix.ENOENT},
		{"full", "full/sub", unix.RENAME_EXCHANGE, unix.EINVAL},
		{"f", "full/f", 0, nil},
		{"d", "full/d", 0, nil},
		{"full", "full/sub/x", 0, unix.EINVAL},
		{"f", "new", unix.RENAME_WHITEOUT, unix.EINVAL},
		{"f", "g", unix.RENAME_EXCHANGE | unix.RENAME_NOREPLACE, unix.EINVAL},
	} {
		t.Run(fmt.Sprintf("%s to %s flags %d", tt.from, tt.to, tt.flags), func(t *testing.T) {
			d := newDrive(t, config{})
			furnish(t, d)
			must(t, os.WriteFile(d.path("g"), []byte("other"), 0o644))
			from, to := inodeAt(d.path(tt.from)), inodeAt(d.path(tt.to))
			err := unix.Renameat2(unix.AT_FDCWD, d.path(tt.from), unix.AT_FDCWD, d.path(tt.to), tt.flags)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			wantFrom, wantTo := uint64(0), from
			switch {
			case err != nil:
				wantFrom, wantTo = from, to
			case tt.flags&unix.RENAME_EXCHANGE != 0:
				wantFrom = to
			}
			if got := inodeAt(d.path(tt.from)); got != wantFrom {
				t.Errorf("the old name leads to %d, want %d", got, wantFrom)
			}
			if got := inodeAt(d.path(tt.to)); got != wantTo {
				t.Errorf("the new name leads to %d, want %d", got, wantTo)
			}
			checkLinks(t, d.root)
		})
	}
}

// TestRenameWorksTwice moves a directory around: old names must not come back.
func TestRenameWorksTwice(t *testing.T) {
	d := newDrive(t, config{})
	furnish(t, d)
	must(t, os.WriteFile(d.path("full/sub/x"), []byte("x"), 0o644))
	must(t, os.Rename(d.path("full"), d.path("moved")))
	must(t, os.Rename(d.path("moved"), d.path("d/again")))
	d.remount()
	if b, err := os.ReadFile(d.path("d/again/sub/x")); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
	for _, old := range []string{"full", "moved"} {
		if inodeAt(d.path(old)) != 0 {
			t.Errorf("%s came back", old)
		}
	}
	if up := inodeAt(d.path("d/again/..")); up != inodeAt(d.path("d")) {
		t.Error(".. of the moved directory leads elsewhere")
	}
	must(t, os.RemoveAll(d.path("d")))
	checkLinks(t, d.root)
}

// inodeAt is the inode that a path leads to, 0 if there is none.
func inodeAt(path string) uint64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// checkLinks checks that a directory has as many links as POSIX asks for.
func checkLinks(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	want := uint64(2)
	for _, e := range entries {
		if e.IsDir() {
			want++
			checkLinks(t, dir+"/"+e.Name())
		}
	}
	var st unix.Stat_t
	must(t, unix.Lstat(dir, &st))
	if uint64(st.Nlink) != want {
		t.Errorf("%s has %d links, want %d", dir, st.Nlink, want)
	}
}

func TestHardLinks(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		must(t, os.WriteFile(d.path("a"), []byte("one"), 0o644))
		must(t, os.Mkdir(d.path("sub"), 0o755))
		must(t, os.Link(d.path("a"), d.path("sub/b")))
		must(t, os.WriteFile(d.path("sub/b"), []byte("two"), 0o644))
		d.remount()
		if b, err := os.ReadFile(d.path("a")); err != nil || string(b) != "two" {
			t.Errorf("%q, %v", b, err)
		}
		var a, b unix.Stat_t
		must(t, unix.Stat(d.path("a"), &a))
		must(t, unix.Stat(d.path("sub/b"), &b))
		if a.Ino != b.Ino || a.Nlink != 2 {
			t.Errorf("inodes %d and %d, %d links", a.Ino, b.Ino, a.Nlink)
		}
		must(t, os.Rename(d.path("a"), d.path("sub/b"))) // two names of one inode: nothing happens
		must(t, unix.Stat(d.path("a"), &a))
		must(t, os.Remove(d.path("a")))
		must(t, unix.Stat(d.path("sub/b"), &b))
		if b.Nlink != 1 {
			t.Errorf("%d links after one was removed", b.Nlink)
		}
	})
}

// TestUnlinkWhileOpen: a file without a name lives until it is closed.
func TestUnlinkWhileOpen(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		for _, size := range []int{0, 100, 100_000} {
			f, err := os.Create(d.path("f"))
			must(t, err)
			content := strings.Repeat("x", size)
			_, err = f.WriteString(content)
			must(t, err)
			must(t, os.Remove(d.path("f")))
			_, err = f.WriteString("more")
			must(t, err)
			st, err := f.Stat()
			must(t, err)
			b := make([]byte, size+4)
			if _, err := f.ReadAt(b, 0); err != nil || string(b) != content+"more" || st.Size() != int64(size)+4 {
				t.Errorf("size %d: read %d bytes, %v, stat says %d", size, len(b), err, st.Size())
			}
			must(t, f.Truncate(3))
			must(t, f.Sync())
			must(t, f.Close())
			must(t, os.WriteFile(d.path("f"), []byte("new"), 0o644))
			if b, err := os.ReadFile(d.path("f")); err != nil || string(b) != "new" {
				t.Errorf("the next file of the name: %q, %v", b, err)
			}
		}
		checkNoDirAfterRmdir(t, d)
	})
}

// checkNoDirAfterRmdir: a directory that was removed while open is empty and
// takes nothing.
func checkNoDirAfterRmdir(t *testing.T, d *drive) {
	t.Helper()
	must(t, os.Mkdir(d.path("gone"), 0o755))
	fd, err := unix.Open(d.path("gone"), unix.O_DIRECTORY|unix.O_RDONLY, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, os.Remove(d.path("gone")))
	if err := unix.Mkdirat(fd, "x", 0o755); !errors.Is(err, unix.ENOENT) {
		t.Errorf("mkdir in a removed directory: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Nlink != 0 {
		t.Errorf("fstat of a removed directory: %d links, %v", st.Nlink, err)
	}
}

// TestTmpfile: a file may get its first name late.
func TestTmpfile(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		fd, err := unix.Open(d.root, unix.O_TMPFILE|unix.O_RDWR, 0o600)
		must(t, err)
		content := strings.Repeat("t", 50_000)
		_, err = unix.Write(fd, []byte(content))
		must(t, err)
		must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, d.path("named"), unix.AT_SYMLINK_FOLLOW))
		must(t, unix.Close(fd))
		d.remount()
		if b, err := os.ReadFile(d.path("named")); err != nil || string(b) != content {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	})
}
