package posix

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/test/posix/ordinary"
	"skep/test/served"
)

// TestOpenFlags: what O_APPEND, O_TRUNC, O_EXCL and O_DIRECT promise.
func TestOpenFlags(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		p := d.path("f")
		put := func(flags int, s string) {
			t.Helper()
			f, err := os.OpenFile(p, flags, 0o644)
			must(t, err)
			_, err = f.WriteString(s)
			must(t, err)
			must(t, f.Close())
		}
		want := func(s string) {
			t.Helper()
			if b, err := os.ReadFile(p); err != nil || string(b) != s {
				t.Errorf("got %.40q, %v, want %.40q", b, err, s)
			}
		}
		put(os.O_CREATE|os.O_EXCL|os.O_WRONLY, "first")
		put(os.O_WRONLY|os.O_APPEND, ", second")
		want("first, second")
		put(os.O_WRONLY, "FIRST")
		want("FIRST, second")
		put(os.O_WRONLY|os.O_TRUNC, "new")
		want("new")
		put(os.O_WRONLY|os.O_SYNC|os.O_TRUNC, "durable")
		want("durable")
		block := strings.Repeat("d", 8192)
		fd, err := unix.Open(p, unix.O_WRONLY|unix.O_TRUNC|unix.O_DIRECT, 0)
		must(t, err)
		buf := aligned(8192)
		copy(buf, block)
		if n, err := unix.Write(fd, buf); err != nil || n != len(buf) {
			t.Errorf("O_DIRECT: %d, %v", n, err)
		}
		must(t, unix.Close(fd))
		want(block)
	})
	asUser(t)
}

// TestCapabilitiesEnd: a file that is written has no capabilities any more,
// however it is written.
func TestCapabilitiesEnd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files capabilities")
	}
	const name = "security.capability"
	variants(t, func(t *testing.T, d *drive) {
		p := d.path("f")
		must(t, os.WriteFile(p, make([]byte, 8192), 0o755))
		for what, flags := range map[string]int{"through the page cache": 0, "past it": unix.O_DIRECT, "anew": unix.O_TRUNC} {
			capability := append([]byte{0, 0, 0, 2}, make([]byte, 16)...)
			must(t, unix.Setxattr(p, name, capability, 0))
			fd, err := unix.Open(p, unix.O_WRONLY|flags, 0)
			must(t, err)
			_, err = unix.Write(fd, aligned(4096))
			must(t, err)
			must(t, unix.Close(fd))
			if n, err := unix.Getxattr(p, name, nil); err != unix.ENODATA {
				t.Errorf("after writing %s: %d bytes, %v", what, n, err)
			}
		}
	})
}

// TestAppendHandles: what a handle opened with O_APPEND writes elsewhere than at the
// end, for a mapping, or after it has lost the flag, goes to its place.
func TestAppendHandles(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		for _, size := range []int{100, 100_000} {
			p := d.path(fmt.Sprint("appended", size))
			f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
			must(t, err)
			_, err = f.Write(bytes.Repeat([]byte("x"), size))
			must(t, err)
			fd := int(f.Fd())
			m, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			copy(m, "mapped")
			must(t, unix.Msync(m, unix.MS_SYNC))
			must(t, unix.Munmap(m))
			_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, 0)
			must(t, err)
			_, err = unix.Pwrite(fd, []byte("there"), 10)
			must(t, err)
			must(t, unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
			must(t, f.Close())
			got, err := os.ReadFile(p)
			must(t, err)
			want := "mappedxxxxtherex"
			if len(got) != size || string(got[:len(want)]) != want {
				t.Errorf("%d bytes became %d, beginning with %q, not %q", size, len(got), got[:len(want)], want)
			}
		}
	})
	asUser(t)
}

// aligned returns n bytes at an address as O_DIRECT wants it.
func aligned(n int) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(err)
	}
	return b
}

// TestMixedOpens opens one file in all ways at once; each sees what the others
// write.
func TestMixedOpens(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		for _, size := range []int64{0, 4096, 1 << 20} {
			must(t, os.WriteFile(d.path("f"), make([]byte, size), 0o644))
			var open []*os.File
			for _, flags := range []int{os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_SYNC, os.O_RDWR | os.O_TRUNC,
				os.O_RDONLY | unix.O_DIRECT} {
				f, err := os.OpenFile(d.path("f"), flags, 0)
				must(t, err)
				open = append(open, f)
			}
			_, err := open[4].WriteAt([]byte("seen"), 0)
			must(t, err)
			_, err = open[2].WriteString(" end")
			must(t, err)
			for i, f := range open[:2] {
				b, err := io.ReadAll(io.NewSectionReader(f, 0, 100))
				if err != nil || string(b) != "seen end" {
					t.Errorf("size %d, handle %d: %q, %v", size, i, b, err)
				}
			}
			for _, f := range open {
				must(t, f.Close())
			}
		}
	})
}

// TestAdvised: what a program has the kernel read ahead is not what others read after it
// was written over.
func TestAdvised(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		d.unmount()
		d.conf.Trace = filepath.Join(t.TempDir(), "trace")
		d.start()
		for name, advise := range map[string]func(fd int) error{
			"fadvise":   func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_WILLNEED) },
			"readahead": func(fd int) error { return readAhead(fd, 100_000) },
		} {
			must(t, os.WriteFile(d.path(name), bytes.Repeat([]byte{'A'}, 100_000), 0o644))
			reader, err := os.Open(d.path(name))
			must(t, err)
			writer, err := os.OpenFile(d.path(name), os.O_RDWR, 0)
			must(t, err)
			d.requests(func() { must(t, advise(int(reader.Fd()))) }) // the kernel has read when it returns
			want := bytes.Repeat([]byte{'B'}, 100_000)
			_, err = writer.WriteAt(want, 0)
			must(t, err)
			d.requests(func() { must(t, errors.Join(reader.Close(), writer.Close())) }) // and has heard of it
			f, err := os.OpenFile(d.path(name), os.O_RDWR, 0)
			must(t, err)
			got, err := io.ReadAll(f)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: what was written over is read, %v", name, err)
			}
			must(t, f.Close())
		}
	})
}

func readAhead(fd int, n uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_READAHEAD, uintptr(fd), 0, n); errno != 0 {
		return errno
	}
	return nil
}

// TestMapped: stores into a shared mapping are seen by read, and move the
// modification time that stat tells.
func TestMapped(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		for _, first := range []int{os.O_RDONLY, os.O_RDWR} { // a reader that came before must not hide it
			must(t, os.WriteFile(d.path("f"), make([]byte, 64<<10), 0o644))
			early, err := os.OpenFile(d.path("f"), first, 0)
			must(t, err)
			f, err := os.OpenFile(d.path("f"), os.O_RDWR, 0)
			must(t, err)
			old := time.Unix(1000, 0)
			must(t, os.Chtimes(d.path("f"), old, old))
			m, err := unix.Mmap(int(f.Fd()), 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			copy(m[5000:], "mapped")
			must(t, unix.Msync(m, unix.MS_SYNC))
			b := make([]byte, 6)
			if _, err := early.ReadAt(b, 5000); err != nil || string(b) != "mapped" {
				t.Errorf("read beside the mapping: %q, %v", b, err)
			}
			must(t, unix.Munmap(m))
			must(t, f.Close())
			must(t, early.Close())
			st, err := os.Stat(d.path("f"))
			must(t, err)
			if st.ModTime().Equal(old) {
				t.Error("the store did not move the modification time")
			}
			d.remount()
			if b, err := os.ReadFile(d.path("f")); err != nil || string(b[5000:5006]) != "mapped" {
				t.Errorf("after remounting: %v", err)
			}
		}
	})
}

// TestMappedAndClosed: a mapping is as good without the descriptor that it was made
// with. What is stored through it is read at once, and stays.
func TestMappedAndClosed(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		d.unmount()
		d.conf.Trace = filepath.Join(t.TempDir(), "trace")
		d.start()
		for name, flags := range map[string]int{
			"emptied": os.O_RDWR | os.O_CREATE | os.O_TRUNC, "new": os.O_RDWR | os.O_CREATE | os.O_EXCL, "plain": os.O_RDWR | os.O_CREATE,
		} {
			for _, size := range []int{9000, 4 << 20} {
				path := d.path(fmt.Sprint(name, size))
				var m []byte
				d.requests(func() { // returns when the server has heard of the close, or will not as long as it is mapped
					m = d.mapped(path, flags, bytes.Repeat([]byte{'A'}, size))
				})
				want := bytes.Repeat([]byte{'B'}, size)
				copy(m, want)
				if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, want) {
					t.Errorf("%s, %d bytes: what was stored is not read: %v", name, size, err)
				}
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				must(t, err)
				_, err = f.WriteAt([]byte{'C'}, 5)
				must(t, err)
				if m[5] != 'C' {
					t.Errorf("%s, %d bytes: what was written is not in the mapping", name, size)
				}
				must(t, f.Close())
				must(t, os.Remove(path))
				must(t, unix.Munmap(m))

				must(t, os.WriteFile(path, make([]byte, size), 0o644))
				m = d.mapped(path, flags&^(os.O_EXCL|os.O_TRUNC), make([]byte, size))
				copy(m, want)
				must(t, unix.Munmap(m))
				if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, want) {
					t.Errorf("%s, %d bytes: what was stored at last is not read: %v", name, size, err)
				}
			}
		}
		d.remount()
		for _, name := range []string{"emptied9000", "new9000", "plain4194304"} {
			if b, err := os.ReadFile(d.path(name)); err != nil || len(bytes.Trim(b, "B")) > 0 {
				t.Errorf("%s, after remounting: %v", name, err)
			}
		}
	})
}

// TestMappedHole: what is stored into a hole through a mapping counts as data at once,
// so that whoever copies only what is no hole copies it.
func TestMappedHole(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		needs(t, "cp", "tar")
		const size, place = 4 << 20, 3 << 20
		before, err := os.Create(d.path("before"))
		must(t, err)
		must(t, before.Truncate(size))
		must(t, before.Close())
		d.remount()
		_, err = os.ReadFile(d.path("before")) // its pages are there: to store into them asks nothing
		must(t, err)
		d.run("du", "before")
		for name, flags := range map[string]int{"before": os.O_RDWR, "plain": os.O_RDWR | os.O_CREATE, "new": os.O_RDWR | os.O_CREATE | os.O_EXCL} {
			f, err := os.OpenFile(d.path(name), flags, 0o644)
			must(t, err)
			if name != "before" { // of which the kernel knows already that it is all a hole
				must(t, f.Truncate(size))
			}
			m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			must(t, f.Close())
			m[place] = 'x'
			var st unix.Stat_t
			must(t, unix.Stat(d.path(name), &st))
			if st.Blocks == 0 {
				t.Errorf("%s: no blocks", name)
			}
			d.wantData(name, place)
			m[place+1] = 'y'
			d.run("cp", "--sparse=always", name, "copy")
			m[place+2] = 'z'
			_, _ = d.try("tar", "-Scf", "archive", name) // it may say that the file changed, as it is written then
			if got, err := os.ReadFile(d.path("copy")); err != nil || !bytes.Equal(got[place:place+2], []byte("xy")) {
				t.Errorf("%s: a copy has %q, %v", name, got[place:place+2], err)
			}
			if got := d.run("tar", "-xOf", "archive"); len(got) != size || got[place:place+3] != "xyz" {
				t.Errorf("%s: an archive has %d bytes, and not what was stored", name, len(got))
			}
			must(t, unix.Munmap(m))
		}
	})
	asUser(t)
}

// wantData checks that the first data of a file are around a place in it.
func (d *drive) wantData(name string, place int64) {
	d.t.Helper()
	f, err := os.Open(d.path(name))
	must(d.t, err)
	defer f.Close()
	off, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
	if err != nil || off > place || off < place-1<<20 {
		d.t.Errorf("%s: the first data are at %d, not at %d: %v", name, off, place, err)
	}
	end, err := unix.Seek(int(f.Fd()), off, unix.SEEK_HOLE)
	if err != nil || end <= place {
		d.t.Errorf("%s: the data end at %d, before %d: %v", name, end, place, err)
	}
}

// mapped writes a file, maps it, and closes it.
func (d *drive) mapped(path string, flags int, content []byte) []byte {
	d.t.Helper()
	f, err := os.OpenFile(path, flags, 0o644)
	must(d.t, err)
	_, err = f.Write(content)
	must(d.t, err)
	m, err := unix.Mmap(int(f.Fd()), 0, len(content), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(d.t, err)
	must(d.t, f.Close())
	return m
}

// TestTimes: times are kept to the nanosecond, also those before 1970, and
// writing moves them.
func TestTimes(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		must(t, os.WriteFile(d.path("f"), []byte("x"), 0o644))
		for _, sec := range []int64{-12345, 0, 1_700_000_000, 5_000_000_000} {
			want := unix.Timespec{Sec: sec, Nsec: 123_456_789}
			ts := []unix.Timespec{{Sec: sec + 7, Nsec: 1}, want}
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, d.path("f"), ts, 0))
			d.remount()
			var st unix.Stat_t
			must(t, unix.Stat(d.path("f"), &st))
			if st.Mtim != want {
				t.Errorf("got %v, want %v", st.Mtim, want)
			}
		}
		before := time.Now().Add(-time.Second)
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, d.path("f"), []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}, 0))
		st, err := os.Stat(d.path("f"))
		must(t, err)
		if st.ModTime().Before(before) {
			t.Errorf("set to now: %v", st.ModTime())
		}
		old := time.Unix(1, 0)
		must(t, os.Chtimes(d.path("f"), old, old))
		f, err := os.OpenFile(d.path("f"), os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString("y")
		must(t, err)
		if st, err = f.Stat(); err != nil || st.ModTime().Before(before) {
			t.Errorf("after a write: %v, %v", st.ModTime(), err)
		}
		must(t, f.Close())
		if !served.LinuxFrom(6, 6) {
			return // the kernel does not ask for a time of birth
		}
		var sx unix.Statx_t
		must(t, unix.Statx(unix.AT_FDCWD, d.path("f"), 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &sx))
		if sx.Mask&unix.STATX_BTIME == 0 || time.Unix(sx.Btime.Sec, 0).Before(before.Add(-time.Minute)) {
			t.Errorf("time of birth: %+v, mask %x", sx.Btime, sx.Mask)
		}
	})
}

// TestKeepsTimesThroughCopy is what rsync and tar do: write, then set the time,
// while the file is still open for writing.
func TestKeepsTimesThroughCopy(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		for _, size := range []int{0, 10, 100_000} {
			f, err := os.Create(d.path("f"))
			must(t, err)
			_, err = f.Write(make([]byte, size))
			must(t, err)
			want := unix.Timespec{Sec: 1_600_000_000, Nsec: 42}
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, d.path("f"), []unix.Timespec{want, want}, 0))
			must(t, f.Close())
			var st unix.Stat_t
			must(t, unix.Stat(d.path("f"), &st))
			if st.Mtim != want || st.Size != int64(size) {
				t.Errorf("size %d: got %v, %d bytes, want %v", size, st.Mtim, st.Size, want)
			}
			d.remount()
			must(t, unix.Stat(d.path("f"), &st))
			if st.Mtim != want || st.Size != int64(size) {
				t.Errorf("size %d, remounted: got %v, %d bytes, want %v", size, st.Mtim, st.Size, want)
			}
		}
	})
}

// TestHoles: holes read as zeros, are found, and are made by truncating and
// punching.
func TestHoles(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		f, err := os.Create(d.path("f"))
		must(t, err)
		defer f.Close()
		_, err = f.WriteAt([]byte("tail"), 1<<20)
		must(t, err)
		fd := int(f.Fd())
		off, err := unix.Seek(fd, 0, unix.SEEK_DATA)
		if err != nil || off == 0 || off > 1<<20 {
			t.Errorf("first data at %d, %v", off, err)
		}
		if off, err := unix.Seek(fd, 0, unix.SEEK_HOLE); err != nil || off != 0 {
			t.Errorf("first hole at %d, %v", off, err)
		}
		must(t, unix.Fallocate(fd, 0, 0, 2<<20))
		if st, _ := f.Stat(); st.Size() != 2<<20 {
			t.Errorf("allocated: %d bytes", st.Size())
		}
		must(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<20, 4096))
		b := make([]byte, 4)
		if _, err := f.ReadAt(b, 1<<20); err != nil || !bytes.Equal(b, make([]byte, 4)) {
			t.Errorf("punched out: %q, %v", b, err)
		}
		if err := unix.Fallocate(fd, unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("collapse: %v", err)
		}
		must(t, f.Truncate(5))
		must(t, f.Truncate(10))
		if st, _ := f.Stat(); st.Size() != 10 {
			t.Errorf("truncated: %d bytes", st.Size())
		}
	})
}

// TestCopyRange: copy_file_range works, whoever does it.
func TestCopyRange(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		content := bytes.Repeat([]byte("0123456789"), 20_000)
		must(t, os.WriteFile(d.path("a"), content, 0o644))
		a, err := os.Open(d.path("a"))
		must(t, err)
		defer a.Close()
		b, err := os.Create(d.path("b"))
		must(t, err)
		for copied := 0; copied < len(content); {
			n, err := unix.CopyFileRange(int(a.Fd()), nil, int(b.Fd()), nil, len(content), 0)
			if err != nil || n == 0 {
				t.Fatalf("after %d bytes: %d, %v", copied, n, err)
			}
			copied += n
		}
		must(t, b.Close())
		if got, err := os.ReadFile(d.path("b")); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// TestPrivileges: what others write loses set-user-id; only owners change
// modes; the kernel refuses what permissions forbid.
func TestPrivileges(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs several users")
	}
	for name, c := range map[string]config{"passed": {Passthrough: true}, "through": {}} {
		t.Run(name, func(t *testing.T) {
			c.Options = "allow_other"
			d := newDrive(t, c)
			must(t, os.Chmod(parentOf(d.root), 0o755))
			must(t, os.WriteFile(d.path("secret"), []byte("s"), 0o600))
			must(t, os.WriteFile(d.path("shared"), []byte("s"), 0o644))
			must(t, unix.Chmod(d.path("shared"), 0o6777))
			must(t, os.Mkdir(d.path("open"), 0o777))
			must(t, unix.Chmod(d.path("open"), 0o3777))
			for _, tt := range []struct {
				script string
				works  bool
			}{
				{"cat secret", false}, {"chmod 600 shared", false}, {"chown 65534 shared", false}, {"touch new", false},
				{"rm shared", false}, {"cat shared", true}, {"echo x >open/mine", true}, {"mkdir open/dir", true},
				{"chmod 700 open/mine", true}, {"ln -s x open/link", true},
			} {
				if err := other(d, tt.script).Run(); (err == nil) != tt.works {
					t.Errorf("%q as another user: %v", tt.script, err)
				}
			}
			var st unix.Stat_t
			must(t, unix.Stat(d.path("open/dir"), &st))
			if st.Uid != ordinary.ID || st.Gid != 0 || st.Mode&unix.S_ISGID == 0 {
				t.Errorf("in a set-group-id directory: %d:%d, mode %o", st.Uid, st.Gid, st.Mode)
			}
			must(t, other(d, "echo more >>shared").Run())
			must(t, unix.Stat(d.path("shared"), &st))
			if st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
				t.Errorf("after another user's write: mode %o", st.Mode)
			}
			must(t, unix.Chmod(d.path("shared"), 0o4777))
			must(t, other(d, "echo over >shared").Run())
			must(t, unix.Stat(d.path("shared"), &st))
			if st.Mode&unix.S_ISUID != 0 {
				t.Errorf("after another user's truncation: mode %o", st.Mode)
			}
			must(t, unix.Chmod(d.path("shared"), 0o6755))
			must(t, os.Chown(d.path("shared"), 1, 1))
			must(t, unix.Stat(d.path("shared"), &st))
			if st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 || st.Uid != 1 || st.Gid != 1 {
				t.Errorf("after chown: %d:%d, mode %o", st.Uid, st.Gid, st.Mode)
			}
		})
	}
}

// other is a shell script that runs in the drive as another user.
func other(d *drive, script string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = d.root
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary.ID, Gid: ordinary.ID}}
	return cmd
}

func parentOf(path string) string { return path[:strings.LastIndexByte(path, '/')] }

// TestShownOwner: uid= and gid= show one owner for all.
func TestShownOwner(t *testing.T) {
	d := newDrive(t, config{Options: "uid=1234,gid=4321"})
	var st unix.Stat_t
	must(t, unix.Stat(d.root, &st))
	if st.Uid != 1234 || st.Gid != 4321 {
		t.Errorf("got %d:%d", st.Uid, st.Gid)
	}
}

// TestSpecialFiles: pipes, sockets and devices are kept.
func TestSpecialFiles(t *testing.T) {
	d := newDrive(t, config{})
	must(t, unix.Mkfifo(d.path("pipe"), 0o600))
	must(t, unix.Mknod(d.path("socket"), unix.S_IFSOCK|0o600, 0))
	want := map[string]uint32{"pipe": unix.S_IFIFO, "socket": unix.S_IFSOCK}
	dev := int(unix.Mkdev(7, 300))
	if os.Geteuid() == 0 {
		must(t, unix.Mknod(d.path("char"), unix.S_IFCHR|0o600, dev))
		want["char"] = unix.S_IFCHR
	}
	d.remount()
	for name, typ := range want {
		var st unix.Stat_t
		must(t, unix.Lstat(d.path(name), &st))
		if st.Mode&unix.S_IFMT != typ {
			t.Errorf("%s: mode %o", name, st.Mode)
		}
		if typ == unix.S_IFCHR && st.Rdev != uint64(dev) {
			t.Errorf("%s: device %x, want %x", name, st.Rdev, dev)
		}
	}
	asUser(t)
}

// TestTrustedMount: root may have devices opened and set-user-id bits honoured.
func TestTrustedMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, tt := range []struct {
		options string
		opens   error
	}{{"", unix.EACCES}, {"dev,suid", nil}} {
		d := newDrive(t, config{Options: tt.options})
		must(t, unix.Mknod(d.path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		f, err := os.OpenFile(d.path("null"), os.O_WRONLY, 0)
		if !errors.Is(err, tt.opens) {
			t.Errorf("options %q: opening a device: %v", tt.options, err)
		}
		if err == nil {
			must(t, f.Close())
		}
		var st unix.Statfs_t
		must(t, unix.Statfs(d.root, &st))
		if got := st.Flags&unix.ST_NOSUID == 0; got != (tt.options != "") {
			t.Errorf("options %q: set-user-id honoured: %v", tt.options, got)
		}
	}
}
