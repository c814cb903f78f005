package blockdev

import (
	"os"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// disk is what a device asks of the process that serves its file.
type disk struct {
	dir  atomic.Pointer[string]
	file *file

	mu   sync.Mutex // guards cuts; never held while the file's is waited for
	cuts []*cut
}

// Place is where the file of a device is, and its size.
type Place struct {
	Dir  string
	Size int64
}

// Mount mounts the filesystem with the file, once.
func (d *disk) Mount(at Place, _ *struct{}) error {
	d.dir.Store(&at.Dir)
	d.file = newFile(at.Size)
	s, err := fuse.NewServer(d.file, at.Dir, &fuse.MountOptions{DirectMount: true, MaxWrite: 1 << 20, DisableSplice: true, FsName: name, Name: name})
	if err != nil {
		return err
	}
	go s.Serve()
	return s.WaitMount()
}

// Load has the file hold what it held after the last Load, but for blocks that
// changed. It tells the number of its node.
func (d *disk) Load(changed Image, node *uint64) error {
	*node = d.file.load(changed)
	return nil
}

// Len tells how many events there were since Load.
func (d *disk) Len(_ struct{}, n *int) error {
	d.file.mu.Lock()
	defer d.file.mu.Unlock()
	*n = len(d.file.log)
	return nil
}

// Events tells the events since Load, but for the first ones.
func (d *disk) Events(from int, out *[]Event) error {
	d.file.mu.Lock()
	defer d.file.mu.Unlock()
	*out = d.file.log[from:len(d.file.log):len(d.file.log)]
	return nil
}

// Fail has writes fail that contain some bytes; without bytes, struct{}.
func (d *disk) Fail(bad []byte, _ *struct{}) error {
	d.file.mu.Lock()
	defer d.file.mu.Unlock()
	d.file.bad = bad
	return nil
}

// Cut takes the power away after so many more events. It tells the cut's number.
func (d *disk) Cut(after int, number *int) error {
	c := &cut{left: after, gone: make(chan struct{}), over: make(chan struct{}), seen: make(chan struct{})}
	d.mu.Lock()
	*number, d.cuts = len(d.cuts), append(d.cuts, c)
	d.mu.Unlock()
	d.file.plan(c)
	return nil
}

func (d *disk) nth(number int) *cut {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cuts[number]
}

// Await returns when a cut has taken the power away, or will not do so any more. It is
// the moment at which that happens until Seen.
func (d *disk) Await(number int, gone *bool) error {
	c := d.nth(number)
	select {
	case <-c.gone:
		*gone = true
	case <-c.over:
	}
	return nil
}

// Seen ends the moment at which a cut took the power away.
func (d *disk) Seen(number int, _ *struct{}) error {
	close(d.nth(number).seen)
	return nil
}

// End ends the process.
func (d *disk) End(struct{}, *struct{}) error {
	os.Exit(0)
	return nil
}
