package tree

import (
	"bytes"
	"os"
	"slices"
	"sync"
	"testing"

	"skep/cache/disk"
)

// rereads is a disk that notes what is dropped from memory of its files.
type rereads struct {
	disk.FS
	mu    sync.Mutex // guards what follows
	folds []int64
}

type rereadFile struct {
	disk.File
	r *rereads
}

func (r *rereads) Open(name string, flags int) (disk.File, error) {
	f, err := r.FS.Open(name, flags)
	return rereadFile{f, r}, err
}

func (f rereadFile) Reread(off, n int64) error {
	f.r.mu.Lock()
	f.r.folds = append(f.r.folds, off/foldSize)
	f.r.mu.Unlock()
	return f.File.Reread(off, n)
}

// during returns what was dropped while fn ran.
func (r *rereads) during(fn func()) []int64 {
	r.mu.Lock()
	r.folds = nil
	r.mu.Unlock()
	fn()
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.folds)
}

// What the kernel keeps in large pieces is dropped once, where small writes go, and
// nothing that was written is lost by it.
func TestSmallWritesRefine(t *testing.T) {
	r := &rereads{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), fs: r, opt: Options{Passthrough: true}}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	want := pattern(3*foldSize, 1)
	f, a, err := d.Create(ctx, Root, "f", 0o644, os.O_WRONLY, Owner{})
	must(t, err)
	writeAlone(t, f, want, 0)
	f.Release()

	write := func(p []byte, off int64) []int64 {
		return r.during(func() {
			f, err := d.Open(ctx, a.Ino, os.O_RDWR)
			must(t, err)
			writeAt(t, f, p, off)
			f.Release()
			if off < int64(len(want)) {
				copy(want[off:], p)
			} else {
				want = append(want, p...)
			}
		})
	}
	small := pattern(4096, 2)
	for _, c := range []struct {
		what string
		p    []byte
		off  int64
		want []int64
	}{
		{"large", pattern(fineWrite, 3), 0, nil},
		{"small", small, 4096, []int64{0}},
		{"small, near it", small, 8192, nil},
		{"small, elsewhere, by another handle", small, 2*foldSize + 4096, []int64{2}},
		{"small, over the border", small, foldSize - 100, []int64{1}},
		{"at the end", small, 3 * foldSize, nil},
	} {
		if got := write(c.p, c.off); !slices.Equal(got, c.want) {
			t.Errorf("%s: dropped %v, want %v", c.what, got, c.want)
		}
	}

	f, err = d.Open(ctx, a.Ino, os.O_RDWR|os.O_TRUNC)
	must(t, err)
	if _, alone := f.Passthrough(); !alone {
		t.Fatal("an emptied file is not passed through")
	}
	want = pattern(foldSize, 4)
	writeAlone(t, f, want, 0)
	f.Release()
	if got := write(small, 0); !slices.Equal(got, []int64{0}) {
		t.Errorf("after the kernel wrote anew: dropped %v", got)
	}
	f, err = d.Open(ctx, a.Ino, os.O_RDONLY)
	must(t, err)
	defer f.Release()
	got := make([]byte, len(want))
	if _, err := f.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("content differs, %v", err)
	}
}

// What a flush that failed has lost can still be read, so it is not dropped.
func TestLostContentStaysInMemory(t *testing.T) {
	r := &rereads{FS: badDisk{disk.Local}}
	d := &device{t: t, dir: t.TempDir(), fs: r}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	f := d.create(Root, "f")
	defer f.Release()
	writeAt(t, f, pattern(foldSize, 1), 0)
	if err := f.Sync(ctx, true); err == nil {
		t.Fatal("a flush on a bad disk succeeded")
	}
	if got := r.during(func() { writeAt(t, f, pattern(4096, 2), 0) }); len(got) > 0 {
		t.Errorf("dropped %v", got)
	}
}

// What is remembered of a file does not grow with it.
func TestRefineIsBounded(t *testing.T) {
	r := &rereads{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), fs: r}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	f := d.create(Root, "f")
	defer f.Release()
	size := int64(fineFolds+2) * foldSize
	_, err := d.SetAttr(ctx, f.Ino(), SetAttr{Size: &size})
	must(t, err)
	writeAt(t, f, pattern(4096, 2), size-foldSize)
	if len(f.in.fine) > 0 {
		t.Errorf("%d words for a file that is sparse", len(f.in.fine))
	}
}
