package tree

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
)

// fullJournal is a disk without room for the journal, once it is full.
type fullJournal struct {
	disk.FS
	full bool
}

type fullFile struct {
	disk.File
	d       *fullJournal
	journal bool
}

func (d *fullJournal) Open(name string, flags int) (disk.File, error) {
	f, err := d.FS.Open(name, flags)
	return fullFile{f, d, strings.HasPrefix(filepath.Base(filepath.Dir(name)), "journal")}, err
}

func (f fullFile) WriteAt(p []byte, off int64) (int, error) {
	if f.journal && f.d.full {
		return 0, unix.ENOSPC
	}
	return f.File.WriteAt(p, off)
}

// twice is a room in which everything is tried once more.
type twice struct{ boundless }

func (twice) Again(_ context.Context, _ int64, try func() error) error { return try() }

// A file that cannot be made, or not grow, as the journal has no room, leaves no
// backing file behind.
func TestFailedCreateLeavesNothing(t *testing.T) {
	full := &fullJournal{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), fs: full, opt: Options{Passthrough: true}}
	d.open()
	d.SetRoom(twice{})
	t.Cleanup(func() { _ = d.st.Close() })
	backingFiles := func() (n int) {
		must(t, d.files.Each(func(uint64) error { n++; return nil }))
		return n
	}
	ino := d.write(Root, "small", pattern(100, 1))
	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(t, err)
	defer f.Release()
	empty := d.write(Root, "empty", nil)
	before := backingFiles()
	full.full = true
	for what, do := range map[string]func() error{
		"create": func() error {
			_, _, err := d.Create(ctx, Root, "new", 0o644, os.O_WRONLY|os.O_TRUNC, Owner{})
			return err
		},
		"grow": func() error {
			_, err := f.WriteAt(ctx, pattern(InlineMax+1, 2), 0, false)
			return err
		},
		"truncate": func() error {
			_, err := d.Open(ctx, empty, os.O_WRONLY|os.O_TRUNC)
			return err
		},
	} {
		if err := do(); !errors.Is(err, ErrNoSpace) {
			t.Errorf("%s on a full disk: %v", what, err)
		}
		if n := backingFiles() - before; n != 0 {
			t.Errorf("%s: %d backing files are left behind", what, n)
		}
	}
	full.full = false
	n, err := f.WriteAt(ctx, pattern(InlineMax+1, 2), 0, false)
	if err != nil || n != InlineMax+1 || backingFiles() != before+1 {
		t.Errorf("when there is room again: %d, %v", n, err)
	}
}

// crowded is a disk on which no file can be made, once it is full.
type crowded struct {
	disk.FS
	full bool
}

func (d *crowded) Open(name string, flags int) (disk.File, error) {
	if d.full && flags&os.O_CREATE != 0 {
		return nil, unix.ENOSPC
	}
	return d.FS.Open(name, flags)
}

// Who empties a file to write it anew can do so where there is no room for a file that
// the kernel would write.
func TestEmptiedWithoutRoom(t *testing.T) {
	full := &crowded{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), fs: full, opt: Options{Passthrough: true}}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	ino := d.write(Root, "small", pattern(100, 1))
	full.full = true
	f, err := d.Open(ctx, ino, os.O_WRONLY|os.O_TRUNC)
	must(t, err)
	defer f.Release()
	if _, alone := f.Passthrough(); alone {
		t.Error("passed through to a file that cannot be there")
	}
	writeAt(t, f, pattern(50, 2), 0)
	if got := d.read(ino); !bytes.Equal(got, pattern(50, 2)) {
		t.Errorf("got %q", got)
	}
}
