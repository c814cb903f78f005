package loop

import (
	"fmt"
	"runtime/debug"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// silent says that a request gets no answer.
const silent = fuse.Status(-1)

// handle handles the request of n bytes that was read, and answers it.
func (w *worker) handle(n int) {
	in := at[fuse.InHeader](w.request)
	unique, code := in.Unique, in.Opcode
	op := operation(code)
	if n < op.in || int(in.Length) != n {
		w.l.log.Error("a request of the kernel is cut off", "op", op.name, "bytes", n, "of", max(op.in, int(in.Length)))
		_ = w.send(unique, fuse.EIO, 0)
		return
	}
	if w.l.opt.Trace {
		w.traceRequest(in, op, n)
	}
	w.came()
	w.begin(unique, in.Pid)
	w.follow(in, n)
	if op.waits {
		w.leave()
	}
	size, st := w.perform(op, w.request[op.in:w.length(in, n)])
	w.done(unique)
	w.waited(code)
	if w.l.opt.Trace {
		w.traceAnswer(unique, size, st)
	}
	if st == silent {
		return
	}
	if errno := w.send(unique, st, size); errno != 0 {
		w.unsent(op, errno)
	}
}

// length is how much of a request counts: extensions at its end do not.
func (w *worker) length(in *fuse.InHeader, n int) int {
	return max(n-int(in.TotalExtlen)*8, operation(in.Opcode).in)
}

// perform has the filesystem answer. It returns how long the answer is, without
// its header.
func (w *worker) perform(op *op, rest []byte) (size int, st fuse.Status) {
	defer func() {
		if v := recover(); v != nil {
			w.l.log.Error("a request failed by a fault of this program",
				"op", op.name, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			size, st = 0, fuse.EIO
		}
	}()
	clear(w.answer[headerSize : headerSize+op.out])
	return op.do(w, rest)
}

// send writes an answer of size bytes that lies behind its header already.
func (w *worker) send(unique uint64, st fuse.Status, size int) unix.Errno {
	if st != fuse.OK {
		size = 0
	}
	*at[fuse.OutHeader](w.answer) = fuse.OutHeader{Length: uint32(headerSize + size), Status: -int32(st), Unique: unique}
	return w.l.device.write(w.answer[:headerSize+size])
}

// unsent looks at why the kernel took no answer. That nobody waits for it any
// more is common.
func (w *worker) unsent(op *op, errno unix.Errno) {
	if errno != unix.ENOENT && errno != unix.ENODEV && errno != unix.EINTR {
		w.l.log.Error("the kernel refused an answer", "op", op.name, "err", errno)
	}
}

// traceRequest and traceAnswer log in the form of go-fuse.
func (w *worker) traceRequest(in *fuse.InHeader, op *op, n int) {
	w.l.log.Debug(fmt.Sprintf("rx %d: %s n%d %s %db p%d", in.Unique, op.name, in.NodeId,
		op.names(w.request[op.in:w.length(in, n)]), n, in.Pid))
}

func (w *worker) traceAnswer(unique uint64, size int, st fuse.Status) {
	if st != silent {
		w.l.log.Debug(fmt.Sprintf("tx %d: %v, %db", unique, st, size))
	}
}
