package memdisk

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
)

// file is an open file of a Disk.
type file struct {
	d    *Disk
	n    uint64
	path string
	fd   uintptr

	unseen bool // what is done leaves the modification time; guarded by d.mu
}

// Open implements disk.FS.
func (d *Disk) Open(name string, flags int) (disk.File, error) {
	if flags&os.O_CREATE != 0 {
		defer d.around(Event{Kind: Link, Path: filepath.Dir(name), Name: filepath.Base(name)})()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, in, err := d.lookup(name)
	if err == nil && d.fail != nil {
		if err := d.fail(Event{Kind: Open, File: n, Path: name}); err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
	}
	switch {
	case flags&unix.O_TMPFILE == unix.O_TMPFILE:
		if err == nil {
			n = d.next
			d.next++
			d.now[n], d.owned[n] = &inode{}, true
		}
	case err == nil && flags&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case err == nil && in.dir:
		err = &fs.PathError{Op: "open", Path: name, Err: unix.EISDIR}
	case err == nil && flags&os.O_TRUNC != 0:
		err = d.do(Event{Kind: Resize, File: n, Path: name})
	case err != nil && flags&os.O_CREATE != 0:
		n, err = d.create(name, false)
	}
	if err != nil {
		return nil, err
	}
	return d.handle(n, name), nil
}

// handle opens an inode; d.mu is held.
func (d *Disk) handle(n uint64, path string) *file {
	f := &file{d: d, n: n, path: path, fd: uintptr(1000 + len(d.open))}
	for d.open[f.fd] != nil {
		f.fd++
	}
	d.open[f.fd] = f
	return f
}

// create makes a name for a new file or directory; d.mu is held.
func (d *Disk) create(path string, dir bool) (uint64, error) {
	p, parent, err := d.lookup(filepath.Dir(path))
	if err != nil {
		return 0, err
	}
	if !parent.dir {
		return 0, &fs.PathError{Op: "open", Path: path, Err: unix.ENOTDIR}
	}
	n := d.next
	d.next++
	return n, d.do(Event{Kind: Link, File: p, Path: filepath.Dir(path), Name: filepath.Base(path), Target: n, dir: dir})
}

// Descriptor returns the open file that has a descriptor, as the kernel would
// find it.
func (d *Disk) Descriptor(fd uintptr) disk.File {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f, ok := d.open[fd]; ok {
		return f
	}
	panic(fmt.Sprintf("descriptor %d is not open", fd))
}

// Stat implements disk.FS.
func (d *Disk) Stat(name string) (unix.Stat_t, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, in, err := d.lookup(name)
	if err != nil {
		return unix.Stat_t{}, err
	}
	return in.stat(), nil
}

// epoch is when the disk's clock begins: each event is a second later.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).Unix()

// Now is the disk's clock, for those who must go by the same.
func (d *Disk) Now() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Unix(epoch+d.clock, 0)
}

func (n *inode) stat() unix.Stat_t {
	t := unix.Timespec{Sec: epoch + n.mtime}
	return unix.Stat_t{Size: int64(len(n.b)), Blocks: (n.there.Bytes() + 511) / 512, Mtim: t, Ctim: t}
}

// Names implements disk.FS.
func (d *Disk) Names(dir string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, in, err := d.lookup(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for name := range in.kids {
		out = append(out, name)
	}
	return out, nil
}

// Mkdir implements disk.FS.
func (d *Disk) Mkdir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mkdir(filepath.Clean(dir))
}

func (d *Disk) mkdir(dir string) error {
	if _, _, err := d.lookup(dir); err == nil {
		return nil
	}
	if err := d.mkdir(filepath.Dir(dir)); err != nil {
		return err
	}
	_, err := d.create(dir, true)
	return err
}

// Rename implements disk.FS, within one directory.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, _, err := d.lookup(filepath.Dir(from))
	if err == nil {
		_, _, err = d.lookup(from)
	}
	if err != nil {
		return err
	}
	if filepath.Dir(from) != filepath.Dir(to) {
		return &fs.PathError{Op: "rename", Path: from, Err: unix.EXDEV}
	}
	return d.do(Event{Kind: Rename, File: p, Path: filepath.Dir(from), Name: filepath.Base(from), To: filepath.Base(to)})
}

// Remove implements disk.FS.
func (d *Disk) Remove(name string) error {
	defer d.around(Event{Kind: Unlink, Path: filepath.Dir(name), Name: filepath.Base(name)})()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.remove(name)
}

func (d *Disk) remove(name string) error {
	p, _, err := d.lookup(filepath.Dir(name))
	if err == nil {
		_, _, err = d.lookup(name)
	}
	if err != nil {
		return err
	}
	return d.do(Event{Kind: Unlink, File: p, Path: filepath.Dir(name), Name: filepath.Base(name)})
}

// RemoveAll implements disk.FS.
func (d *Disk) RemoveAll(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.removeAll(filepath.Clean(name))
}

func (d *Disk) removeAll(name string) error {
	_, in, err := d.lookup(name)
	if err != nil {
		return nil
	}
	for kid := range in.kids {
		if err := d.removeAll(filepath.Join(name, kid)); err != nil {
			return err
		}
	}
	return d.remove(name)
}

// SyncDir implements disk.FS.
func (d *Disk) SyncDir(dir string) error {
	defer d.around(Event{Kind: FlushDir, Path: dir})()
	d.mu.Lock()
	defer d.mu.Unlock()
	n, _, err := d.lookup(dir)
	if err != nil {
		return err
	}
	return d.do(Event{Kind: FlushDir, File: n, Path: dir})
}

// SyncAll implements disk.FS.
func (d *Disk) SyncAll(dir string) error {
	defer d.around(Event{Kind: FlushAll, Path: dir})()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.do(Event{Kind: FlushAll, Path: dir})
}

// Room implements disk.FS.
func (d *Disk) Room(string) (total, avail int64, err error) { return 1 << 40, 1 << 39, nil }

// event makes an event of the file happen.
func (f *file) event(e Event) error {
	e.File, e.Path = f.n, f.path
	defer f.d.around(e)()
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.open[f.fd] != f {
		return fs.ErrClosed
	}
	e.unseen = f.unseen
	return f.d.do(e)
}

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	defer f.d.around(Event{Kind: Read, File: f.n, Path: f.path, Off: off})()
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.open[f.fd] != f {
		return 0, fs.ErrClosed
	}
	b := f.d.now[f.n].b
	n := copy(p, b[min(off, int64(len(b))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.event(Event{Kind: Write, Off: off, Data: append([]byte(nil), p...)}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close implements io.Closer.
func (f *file) Close() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.open[f.fd] != f {
		return fs.ErrClosed
	}
	delete(f.d.open, f.fd)
	return nil
}

func (f *file) Sync() error               { return f.event(Event{Kind: Flush}) }
func (f *file) Datasync() error           { return f.event(Event{Kind: Flush}) }
func (f *file) Truncate(size int64) error { return f.event(Event{Kind: Resize, Size: size}) }
func (f *file) Fd() uintptr               { return f.fd }
func (f *file) Shared() (bool, error)     { return false, nil }

// Allocate implements disk.File.
func (f *file) Allocate(mode uint32, off, n int64) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
		err = f.event(Event{Kind: Clear, Off: off, Size: n})
	}
	if err == nil && mode&unix.FALLOC_FL_KEEP_SIZE == 0 && off+n > st.Size {
		err = f.event(Event{Kind: Resize, Size: off + n})
	}
	return err
}

// Seek implements disk.File.
func (f *file) Seek(off int64, whence int) (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	in := f.d.now[f.n]
	size := int64(len(in.b))
	if off >= size {
		return 0, unix.ENXIO
	}
	if whence == unix.SEEK_HOLE {
		for _, r := range in.there.Missing(off, size) {
			return r.From, nil
		}
		return size, nil
	}
	for _, r := range in.there.Within(off, size) {
		return r.From, nil
	}
	return 0, unix.ENXIO
}

// Unseen implements disk.File.
func (f *file) Unseen(do func() error) error {
	set := func(unseen bool) {
		f.d.mu.Lock()
		defer f.d.mu.Unlock()
		f.unseen = unseen
	}
	set(true)
	defer set(false)
	return do()
}

// Reread implements disk.File: what a flush lost that failed reads as it was
// before, wherever it lies: memory may be given up at any time.
func (f *file) Reread(_, _ int64) error {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	size := int64(len(d.now[f.n].b)) // it is not lost
	m := image{}
	if in, ok := d.base[f.n]; ok {
		m[f.n] = in
	}
	lost, owned := d.lost(f.n), map[uint64]bool{}
	if len(lost) == 0 {
		return nil
	}
	for i, e := range d.log {
		if e.File == f.n && !e.isFlush() && !lost[i] {
			m.apply(e, owned)
		}
	}
	m.apply(Event{Kind: Resize, File: f.n, Size: size}, owned)
	d.change(Event{Kind: Write, File: f.n, Path: f.path, Data: m[f.n].b})
	return nil
}

// Stat implements disk.File.
func (f *file) Stat() (unix.Stat_t, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.d.now[f.n].stat(), nil
}
