package tree

import (
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Reading moves access times as relatime does, writes nothing to the journal,
// leaves no mark for a commit, and is not forgotten.
func TestAccessTimes(t *testing.T) {
	var clock atomic.Int64
	clock.Store(1000)
	d := newDevice(t, Options{Now: func() time.Time { return time.Unix(clock.Load(), 0) }})
	ino := d.write(Root, "file", []byte("content"))
	read := func(flags int) (atime int64, journal int64) {
		f, err := d.Open(ctx, ino, os.O_RDONLY|flags)
		must(t, err)
		before := d.st.Appended()
		_, err = f.ReadAt(ctx, make([]byte, 7), 0)
		must(t, err)
		f.Release()
		a, err := d.Attr(ctx, ino)
		must(t, err)
		return a.Atime.Sec, d.st.Appended() - before
	}
	for _, tt := range []struct {
		what  string
		at    int64
		flags int
		want  int64
	}{
		{"first read", 1010, 0, 1010},
		{"soon after", 1020, 0, 1010},
		{"a day after", 1010 + 24*3600, 0, 1010 + 24*3600},
		{"a day after, by who wants no access times", 1010 + 48*3600, unix.O_NOATIME, 1010 + 24*3600},
	} {
		clock.Store(tt.at)
		if atime, journal := read(tt.flags); atime != tt.want || journal != 0 {
			t.Errorf("%s: %d, want %d; %d bytes in the journal", tt.what, atime, tt.want, journal)
		}
	}
	before, err := d.Attr(ctx, ino)
	must(t, err)
	pending, _, err := d.Pending()
	must(t, err)
	must(t, d.saveAtimes())
	if now, _, err := d.Pending(); err != nil || now != pending {
		t.Errorf("%d marks became %d, %v", pending, now, err)
	}
	d.restart()
	if a, err := d.Attr(ctx, ino); err != nil || a != before {
		t.Errorf("%+v became %+v, %v", before, a, err)
	}
	d.SetNoAtime(true)
	clock.Store(1010 + 96*3600)
	if atime, _ := read(0); atime != 1010+24*3600 {
		t.Errorf("noatime: %d", atime)
	}
}

// Who opens a file for reading that is passed through moves its access time, for
// nobody tells of the reading itself; who only writes does not.
func TestAccessTimesOfPassedFiles(t *testing.T) {
	var clock atomic.Int64
	clock.Store(1000)
	d := newDevice(t, Options{Passthrough: true, Now: func() time.Time { return time.Unix(clock.Load(), 0) }})
	ino := d.write(Root, "file", pattern(1<<20, 1))
	open := func(flags int) int64 {
		f, err := d.Open(ctx, ino, flags)
		must(t, err)
		defer f.Release()
		if _, passed := f.Passthrough(); !passed {
			t.Errorf("flags %x: the file is not passed through", flags)
		}
		a, err := d.Attr(ctx, ino)
		must(t, err)
		return a.Atime.Sec
	}
	for _, tt := range []struct {
		at    int64
		flags int
		want  int64
	}{
		{1010, os.O_RDONLY, 1010},
		{1020, os.O_RDONLY, 1010},
		{1010 + 24*3600, os.O_RDONLY | unix.O_NOATIME, 1010},
		{1010 + 24*3600, os.O_WRONLY | os.O_TRUNC, 1010},
	} {
		clock.Store(tt.at)
		if got := open(tt.flags); got != tt.want {
			t.Errorf("at %d, flags %x: %d, want %d", tt.at, tt.flags, got, tt.want)
		}
	}
}

// Listing a directory moves its access time; looking at it for our own ends does not.
func TestAccessTimesOfDirectories(t *testing.T) {
	var clock atomic.Int64
	clock.Store(1000)
	d := newDevice(t, Options{Now: func() time.Time { return time.Unix(clock.Load(), 0) }})
	d.write(Root, "file", []byte("x"))
	clock.Store(1010)
	names := func(list func(fn func(DirEntry) bool) error) (names []string, atime int64) {
		must(t, list(func(e DirEntry) bool { names = append(names, e.Name); return true }))
		a, err := d.Attr(ctx, Root)
		must(t, err)
		return names, a.Atime.Sec
	}
	got, atime := names(func(fn func(DirEntry) bool) error { return d.EachEntry(ctx, Root, fn) })
	if !slices.Equal(got, []string{"file"}) || atime != 1000 {
		t.Errorf("looking: %q, accessed at %d", got, atime)
	}
	got, atime = names(func(fn func(DirEntry) bool) error { return d.ReadDir(ctx, Root, 0, fn) })
	if !slices.Equal(got, []string{"file"}) || atime != 1010 {
		t.Errorf("listing: %q, accessed at %d", got, atime)
	}
}
