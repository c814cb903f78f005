package memdisk

import (
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"skep/cache/backing"
)

// Disk is a disk.FS in memory.
type Disk struct {
	mu    sync.Mutex // guards all below
	now   image
	owned map[uint64]bool // inodes of now that no other image shares
	base  image           // what was there when the events began
	log   []Event
	next  uint64 // number of the next file
	open  map[uintptr]*file
	clock int64

	fail   func(Event) error         // see Fail
	ignore func(Event) bool          // see Ignore
	watch  func(e Event, after bool) // see Watch
}

// Kind is what an Event does.
type Kind int

// The kinds of events.
const (
	Write    Kind = iota
	Resize        // to Size bytes, by truncation or allocation
	Clear         // [Off, Off+Size) to a hole
	Link          // Name in directory File leads to Target; the old one, if any, is replaced
	Unlink        // Name in directory File
	Rename        // Name in directory File to To in the same one
	Flush         // content and size of File
	FlushDir      // names of directory File
	FlushAll      // the whole disk
	failed        // added to a flush: it failed, and what it was to flush is not safe by a later one
	Read     = -1 // of a file: no event, as it changes nothing; see Watch
	Open     = -2 // of a file that is there: likewise; see Fail
)

// Event is a change of the disk, or a flush.
type Event struct {
	Kind     Kind
	File     uint64 // file, or directory
	Path     string // by which it was opened, for people and tests
	Off      int64
	Size     int64
	Data     []byte
	Name, To string
	Target   uint64
	dir      bool  // Target is a directory
	at       int64 // when, by the disk's clock
	unseen   bool  // the modification time stays
}

func (e Event) isFlush() bool { return e.Kind >= Flush }

func (e Event) String() string {
	switch e.Kind {
	case Read:
		return "read " + e.Path
	case Open:
		return "open " + e.Path
	}
	names := [...]string{"write", "resize", "clear", "link", "unlink", "rename", "flush", "flush dir", "flush all"}
	k := names[e.Kind%failed]
	if e.Kind > failed {
		k = "failed " + k
	}
	switch e.Kind {
	case Write:
		return fmt.Sprintf("%s %s at %d, %d bytes", k, e.Path, e.Off, len(e.Data))
	case Resize:
		return fmt.Sprintf("%s %s to %d", k, e.Path, e.Size)
	case Clear:
		return fmt.Sprintf("%s %s at %d, %d bytes", k, e.Path, e.Off, e.Size)
	case Link, Unlink:
		return fmt.Sprintf("%s %s/%s", k, e.Path, e.Name)
	case Rename:
		return fmt.Sprintf("%s %s/%s to %s", k, e.Path, e.Name, e.To)
	}
	return fmt.Sprintf("%s %s", k, e.Path)
}

// image is the state of a disk: inodes by number. Inodes are shared between
// images and copied when they change.
type image map[uint64]*inode

type inode struct {
	dir   bool
	kids  map[string]uint64
	b     []byte
	there backing.Ranges // where data was written; the rest is holes
	mtime int64
	hash  uint64 // see ownHash; 0: not known
}

const rootFile = 1

// New returns an empty disk.
func New() *Disk { return from(image{rootFile: {dir: true}}, rootFile+1, 0) }

func from(base image, next uint64, clock int64) *Disk {
	return &Disk{base: base, now: maps.Clone(base), owned: map[uint64]bool{}, next: next, clock: clock, open: map[uintptr]*file{}}
}

// apply makes an event's change.
func (m image) apply(e Event, owned map[uint64]bool) {
	old, ok := m[e.File]
	if !ok {
		old = &inode{}
	}
	n := old
	if !owned[e.File] {
		n = old.clone()
		m[e.File], owned[e.File] = n, true
	}
	n.hash = 0
	if !e.unseen {
		n.mtime = e.at
	}
	switch e.Kind {
	case Write:
		end := e.Off + int64(len(e.Data))
		n.resize(max(end, int64(len(n.b))))
		copy(n.b[e.Off:], e.Data)
		n.there.Add(e.Off, end)
	case Resize:
		n.resize(e.Size)
		n.there.Remove(e.Size, 1<<62)
	case Clear:
		if end := min(e.Off+e.Size, int64(len(n.b))); e.Off < end {
			clear(n.b[e.Off:end])
		}
		n.there.Remove(e.Off, e.Off+e.Size)
	case Link:
		n.kids[e.Name] = e.Target
		if _, ok := m[e.Target]; !ok {
			m[e.Target] = &inode{dir: e.dir, mtime: e.at}
		}
	case Unlink:
		delete(n.kids, e.Name)
	case Rename:
		if k, ok := n.kids[e.Name]; ok {
			n.kids[e.To] = k
			delete(n.kids, e.Name)
		}
	}
}

func (n *inode) clone() *inode {
	c := &inode{dir: n.dir, b: slices.Clone(n.b), there: n.there.Clone(), mtime: n.mtime, kids: make(map[string]uint64, len(n.kids)+1)}
	for k, v := range n.kids {
		c.kids[k] = v
	}
	return c
}

func (n *inode) resize(size int64) {
	if size <= int64(len(n.b)) {
		clear(n.b[size:])
		n.b = n.b[:size]
		return
	}
	n.b = append(n.b, make([]byte, size-int64(len(n.b)))...)
}

// lookup finds a path.
func (d *Disk) lookup(path string) (uint64, *inode, error) {
	at := uint64(rootFile)
	for name := range strings.SplitSeq(strings.Trim(filepath.Clean(path), "/"), "/") {
		if name == "" || name == "." {
			continue
		}
		next, ok := d.now[at].kids[name]
		if !ok {
			return 0, nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		at = next
	}
	return at, d.now[at], nil
}

// Fail has fn asked before each event and each Open, with the disk locked: it may make that
// fail, which then does not happen. A flush that fails loses the content that it was to flush
// for ever, though reading still finds it, as Linux does; names and sizes become safe by
// the next. Nil ends it. Fail returns what was asked until now: nothing asks it any more.
func (d *Disk) Fail(fn func(Event) error) (was func(Event) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	was, d.fail = d.fail, fn
	return was
}

// Ignore has fn asked of each flush, with the disk locked: it may make it succeed without
// having any effect. Nil ends it.
func (d *Disk) Ignore(fn func(Event) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ignore = fn
}

// Watch has fn called before and after each event and each Read, by who makes it
// happen, without the disk locked: something else can happen there. Nil ends it.
func (d *Disk) Watch(fn func(e Event, after bool)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watch = fn
}

// around tells that an event is about to happen, and returns what tells that it has.
func (d *Disk) around(e Event) (happened func()) {
	d.mu.Lock()
	watch := d.watch
	d.mu.Unlock()
	if watch == nil {
		return func() {}
	}
	watch(e, false)
	return func() { watch(e, true) }
}

// do makes an event happen; d.mu is held.
func (d *Disk) do(e Event) error {
	if d.fail != nil {
		if err := d.fail(e); err != nil {
			if e.isFlush() {
				e.Kind += failed
				d.log = append(d.log, e)
			}
			return &fs.PathError{Op: e.String(), Path: e.Path, Err: err}
		}
	}
	if d.ignore != nil && e.isFlush() && d.ignore(e) {
		return nil
	}
	d.change(e)
	return nil
}

// change is do that nothing keeps from happening; d.mu is held.
func (d *Disk) change(e Event) {
	d.clock++
	e.at = d.clock
	d.log = append(d.log, e)
	if !e.isFlush() {
		d.now.apply(e, d.owned)
	}
}

// lost tells which events a flush of a file lost that failed; d.mu is held.
func (d *Disk) lost(file uint64) map[int]bool {
	out := map[int]bool{}
	settled, failing := d.settled(len(d.log)), false
	for i := len(d.log) - 1; i >= 0; i-- {
		switch e := d.log[i]; {
		case e.Kind == failed+FlushAll || e.Kind == failed+Flush && e.File == file:
			failing = true
		case failing && !settled[i] && e.File == file && !e.isFlush():
			out[i] = true
		}
	}
	return out
}

// Lost reports whether a flush failed.
func (d *Disk) Lost() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.log, func(e Event) bool { return e.Kind > failed })
}

// Len is how many events there were so far.
func (d *Disk) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.log)
}

// Log returns the events so far.
func (d *Disk) Log() []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

// Below reports whether the event is of a directory or of what is in it.
func (e Event) Below(dir string) bool {
	return e.Path == dir || strings.HasPrefix(e.Path, dir+"/")
}
