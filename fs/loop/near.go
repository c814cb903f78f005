package loop

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// farEach is how many requests are handled between two looks at where the
	// caller runs, which cost about as much as two requests each; nearEach where
	// the last look found it near.
	farEach  = 64
	nearEach = 256
	// newcomer is how many requests in a row another thread makes before it is
	// looked where that one runs.
	newcomer = 16
	// rarely is the same where moving to the caller did not last, mostLost times in
	// a row.
	rarely   = 1 << 14
	mostLost = 8
	// large is how much data a request has that keeps both sides busy; of a stream
	// of such, each side is better off on a processor of its own.
	large  = 64 << 10
	stream = 4
)

// place is what a worker knows of where it runs. To wake somebody on another
// processor that sleeps takes longer than all the rest of a request, above all in
// a virtual machine, and each request does so once or twice. On the caller's own
// processor nobody need be woken there: one sleeps when the other runs, and trying
// to read only keeps the caller from running. The kernel leaves both where they
// are, mostly; so a worker that moved to its caller's processor stays there. Where
// that does not last, it is given up.
type place struct {
	near bool // the last look found the caller on the worker's processor, or moved it there
	left int  // requests until the next look
	lost int  // how often in a row moving did not last, or the caller was not found
	flow int  // large requests in a row

	by   uint32 // the thread that made the last request
	run  int    // how many it made, one after the other
	seen uint32 // the thread that was looked for last
}

// due takes note of a request by a thread with so much data, and reports whether
// to look now where the thread runs.
func (p *place) due(by uint32, data int) bool {
	if by != p.by {
		p.by, p.run = by, 0
	}
	p.run++
	if data >= large {
		if p.flow++; p.flow >= stream {
			p.near, p.left = false, max(p.left, farEach)
		}
		return false
	}
	p.flow = 0
	p.left--
	return p.left <= 0 || p.run == newcomer && by != p.seen && p.left <= nearEach
}

// saw takes note of where the caller and the worker were found, and reports
// whether the worker is to move to the caller. A processor that is not known is
// negative.
func (p *place) saw(caller, here int) (move bool) {
	p.seen = p.by
	known := caller >= 0 && here >= 0
	switch {
	case known && caller == here:
		p.near, p.lost, p.left = true, 0, nearEach
		return false
	case p.near || !known:
		p.lost++
	}
	if p.lost >= mostLost {
		p.giveUp()
		return false
	}
	p.near, p.left = known, farEach
	return known
}

// giveUp has the worker look for its caller rarely.
func (p *place) giveUp() { p.near, p.lost, p.left = false, mostLost-1, rarely }

// follow has the worker run where the caller of the request in work runs, which
// has n bytes. What no thread asks for, such as RELEASE and FORGET, does not count,
// nor what execve may: where a process is being replaced by another program, Linux
// lets nobody look at it until its files are closed, and what closing them asks for is
// answered. A thread that asks for anything else cannot be replaced before it has its
// answer, unless it does not wait for it (io_submit, past the page cache). Should a look
// take long all the same, the worker counts as stuck, as in any request.
func (w *worker) follow(in *header, n int) {
	on := w.l.processors
	if on == nil || in.Pid == 0 || ofExec(in.Opcode) || w.isDirect() || !w.place.due(in.Pid, w.data(n)) {
		return
	}
	if caller := on.of(in.Pid); w.place.saw(caller, here()) && !on.move(caller) {
		w.place.giveUp()
	}
}

// ofExec reports whether execve may make a request of this kind, as it closes files.
func ofExec(code uint32) bool {
	const setAttr, flush = 4, 25 // the former for the times, with the writeback cache
	return code == setAttr || code == flush
}

const readRequest, writeRequest = 15, 16

// ofOwner is set in a read or write past the page cache, of which the kernel tells who
// owns locks, whether the program wants it so (O_DIRECT) or we do (FOPEN_DIRECT_IO).
const ofOwner = 1 << 1 // FUSE_READ_LOCKOWNER, FUSE_WRITE_LOCKOWNER

// isDirect reports whether the request in work reads or writes past the page cache.
func (w *worker) isDirect() bool {
	switch at[header](w.request).Opcode {
	case readRequest:
		in := at[fuse.ReadIn](w.request)
		return in.ReadFlags&ofOwner != 0 || in.Flags&unix.O_DIRECT != 0
	case writeRequest:
		in := at[fuse.WriteIn](w.request)
		return in.WriteFlags&ofOwner != 0 || in.Flags&unix.O_DIRECT != 0
	}
	return false
}

// data is how much data the request of n bytes that was read carries or asks for.
func (w *worker) data(n int) int {
	if at[header](w.request).Opcode == readRequest {
		return int(at[fuse.ReadIn](w.request).Size)
	}
	return n
}
