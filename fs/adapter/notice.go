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
	mu     sync.Mutex // guards inodes and ended
	inodes map[tree.Ino]struct{}
	ended  bool

	wake chan struct{} // holds one token while there is something to send
	done chan struct{} // closed when the goroutine ended; nil before start
}

func (n *notices) init() {
	n.inodes = map[tree.Ino]struct{}{}
	n.wake = make(chan struct{}, 1)
}

// attributes has the kernel told that it does not know the attributes of an inode any
// more. It does not wait. After most changes Linux by itself throws away answers that were
// given before; not after those of extended attributes and fallocate.
func (n *notices) attributes(ino tree.Ino) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inodes[ino] = struct{}{}
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
	inodes, ended := n.inodes, n.ended
	n.inodes = map[tree.Ino]struct{}{}
	n.mu.Unlock()
	if ended {
		return false
	}
	for ino := range inodes {
		if err := k.InvalidateInode(nodeOf(ino), -1, 0); err != nil { // its attributes alone
			log.Debug("telling the kernel of an inode", "err", err)
		}
	}
	return true
}
