package adapter

import (
	"log/slog"
	"sync"

	"skep/cache/tree"
	"skep/fs/mount"
)

// notices tell the kernel what changed without its asking. They go out one
// after the other from a goroutine of their own, because the kernel may first
// want an answer to a request; a notice must never be sent from within one.
type notices struct {
	mu      sync.Mutex // guards inodes, entries and ended
	inodes  map[tree.Ino]bool
	entries map[nameIn]struct{}
	ended   bool

	wake chan struct{} // holds one token while there is something to send
	done chan struct{} // closed when the goroutine ended; nil before start
}

type nameIn struct {
	dir  tree.Ino
	name string
}

func (n *notices) init() {
	n.inodes, n.entries = map[tree.Ino]bool{}, map[nameIn]struct{}{}
	n.wake = make(chan struct{}, 1)
}

// Changed tells the kernel that attributes and content of an inode changed
// otherwise than by its requests. It does not wait.
func (f *FS) Changed(ino tree.Ino) { f.notes.inode(ino, true) }

// EntryChanged tells the kernel that a name of a directory appeared, went or
// leads elsewhere, otherwise than by its requests. It does not wait.
func (f *FS) EntryChanged(dir tree.Ino, name string) {
	f.notes.entry(dir, name)
	f.notes.inode(dir, true) // its listing
}

// inode queues a notice; content says that more than attributes changed.
func (n *notices) inode(ino tree.Ino, content bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inodes[ino] = n.inodes[ino] || content
	n.ring()
}

func (n *notices) entry(dir tree.Ino, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.entries[nameIn{dir, name}] = struct{}{}
	n.ring()
}

// ring wakes the goroutine; n.mu is held.
func (n *notices) ring() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *notices) start(k mount.Invalidator, log *slog.Logger) {
	n.done = make(chan struct{})
	go func() {
		defer close(n.done)
		for n.send(k, log) {
			<-n.wake
		}
	}()
}

// stop ends the goroutine and waits for it.
func (n *notices) stop() {
	if n.done == nil {
		return
	}
	n.mu.Lock()
	n.ended = true
	n.ring()
	n.mu.Unlock()
	<-n.done
}

// send sends what is queued; false says that it was the end.
func (n *notices) send(k mount.Invalidator, log *slog.Logger) bool {
	n.mu.Lock()
	inodes, entries, ended := n.inodes, n.entries, n.ended
	n.inodes, n.entries = map[tree.Ino]bool{}, map[nameIn]struct{}{}
	n.mu.Unlock()
	if ended {
		return false
	}
	for e := range entries {
		if err := k.InvalidateEntry(nodeOf(e.dir), e.name); err != nil {
			log.Debug("telling the kernel of a name", "err", err)
		}
	}
	for ino, content := range inodes {
		off := int64(-1) // attributes only
		if content {
			off = 0
		}
		if err := k.InvalidateInode(nodeOf(ino), off, 0); err != nil {
			log.Debug("telling the kernel of an inode", "err", err)
		}
	}
	return true
}
