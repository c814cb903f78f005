package loop

import (
	"bytes"
	"fmt"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// op is how one kind of request is answered.
type op struct {
	name  string
	in    int  // bytes of a request before its names and data
	out   int  // bytes of an answer before its data; they are zero at first
	waits bool // handling it mostly means to wait
	// do has the filesystem answer the request at the begin of w.request, whose
	// names and data are rest. It returns how long the answer is.
	do func(w *worker, rest []byte) (size int, st fuse.Status)
}

// operation says how requests of a kind are answered.
func operation(code uint32) *op {
	if code < uint32(len(ops)) && ops[code].do != nil {
		return &ops[code]
	}
	return &unknown
}

// unknown is any request that is not in the table.
var unknown = op{name: "UNKNOWN", in: sizeOf[fuse.InHeader](),
	do: func(*worker, []byte) (int, fuse.Status) { return 0, fuse.ENOSYS }}

// fsys and the rest are shorter names for the shapes of a filesystem's methods.
type (
	fsys   = fuse.RawFileSystem
	cancel = <-chan struct{}
	header = fuse.InHeader
)

// ops has all requests, by the kernel's numbers.
var ops = [...]op{
	1:  named("LOOKUP", fsys.Lookup),
	2:  {name: "FORGET", in: sizeOf[fuse.ForgetIn](), do: forget},
	3:  plain("GETATTR", fsys.GetAttr),
	4:  plain("SETATTR", fsys.SetAttr),
	5:  {name: "READLINK", in: sizeOf[header](), do: readlink},
	6:  {name: "SYMLINK", in: sizeOf[header](), out: sizeOf[fuse.EntryOut](), do: symlink},
	8:  named("MKNOD", fsys.Mknod),
	9:  named("MKDIR", fsys.Mkdir),
	10: gone("UNLINK", fsys.Unlink),
	11: gone("RMDIR", fsys.Rmdir),
	12: {name: "RENAME", in: sizeOf[header]() + 8, do: rename},
	13: named("LINK", fsys.Link),
	14: plain("OPEN", fsys.Open),
	15: {name: "READ", in: sizeOf[fuse.ReadIn](), do: read},
	16: {name: "WRITE", in: writeSize, out: sizeOf[fuse.WriteOut](), do: write},
	17: plain("STATFS", fsys.StatFs),
	18: bare("RELEASE", release),
	20: bare("FSYNC", fsys.Fsync),
	21: {name: "SETXATTR", in: sizeOf[header]() + 8, do: setXAttr},
	22: {name: "GETXATTR", in: sizeOf[fuse.GetXAttrIn](), do: getXAttr},
	23: {name: "LISTXATTR", in: sizeOf[fuse.GetXAttrIn](), do: listXAttr},
	24: gone("REMOVEXATTR", fsys.RemoveXAttr),
	25: bare("FLUSH", fsys.Flush),
	27: plain("OPENDIR", fsys.OpenDir),
	28: {name: "READDIR", in: sizeOf[fuse.ReadIn](), do: readDir},
	29: bare("RELEASEDIR", releaseDir),
	30: bare("FSYNCDIR", fsys.FsyncDir),
	31: plain("GETLK", fsys.GetLk),
	32: bare("SETLK", fsys.SetLk),
	33: waiting(bare("SETLKW", fsys.SetLkw)),
	34: bare("ACCESS", fsys.Access),
	35: named("CREATE", fsys.Create),
	36: {name: "INTERRUPT", in: sizeOf[fuse.InterruptIn](), do: interrupt},
	38: bare("DESTROY", func(fsys, cancel, *header) fuse.Status { return fuse.OK }),
	39: {name: "IOCTL", in: sizeOf[fuse.IoctlIn](), out: sizeOf[fuse.IoctlOut](), do: ioctl},
	41: {name: "NOTIFY_REPLY", in: sizeOf[header](), do: ignore},
	42: {name: "BATCH_FORGET", in: sizeOf[header]() + 8, do: batchForget},
	43: bare("FALLOCATE", fsys.Fallocate),
	44: {name: "READDIRPLUS", in: sizeOf[fuse.ReadIn](), do: readDirPlus},
	45: {name: "RENAME2", in: sizeOf[fuse.RenameIn](), do: rename2},
	46: plain("LSEEK", fsys.Lseek),
	47: {name: "COPY_FILE_RANGE", in: sizeOf[fuse.CopyFileRangeIn](), out: sizeOf[fuse.WriteOut](), do: copyFileRange},
	51: plain("TMPFILE", fsys.Tmpfile), // its name is a slash that means nothing
	52: plain("STATX", fsys.Statx),
	53: {name: "COPY_FILE_RANGE_64", in: sizeOf[fuse.CopyFileRangeIn](), out: sizeOf[fuse.CopyFileRangeOut](), do: copyFileRange64},
}

func sizeOf[T any]() int { return int(unsafe.Sizeof(*new(T))) }

// waiting marks requests that mostly wait.
func waiting(o op) op {
	o.waits = true
	return o
}

// plain is a request of fixed size with an answer of fixed size.
func plain[In, Out any](name string, f func(fsys, cancel, *In, *Out) fuse.Status) op {
	return op{name: name, in: sizeOf[In](), out: sizeOf[Out](), do: func(w *worker, _ []byte) (int, fuse.Status) {
		return sizeOf[Out](), f(w.l.fs, w.cancel, at[In](w.request), at[Out](w.answer[headerSize:]))
	}}
}

// named is a request with one name and an answer of fixed size.
func named[In, Out any](name string, f func(fsys, cancel, *In, string, *Out) fuse.Status) op {
	return op{name: name, in: sizeOf[In](), out: sizeOf[Out](), do: func(w *worker, rest []byte) (int, fuse.Status) {
		return sizeOf[Out](), f(w.l.fs, w.cancel, at[In](w.request), text(rest), at[Out](w.answer[headerSize:]))
	}}
}

// gone is a request with one name that is answered by success or failure.
func gone(name string, f func(fsys, cancel, *header, string) fuse.Status) op {
	return op{name: name, in: sizeOf[header](), do: func(w *worker, rest []byte) (int, fuse.Status) {
		return 0, f(w.l.fs, w.cancel, at[header](w.request), text(rest))
	}}
}

// bare is a request of fixed size that is answered by success or failure.
func bare[In any](name string, f func(fsys, cancel, *In) fuse.Status) op {
	return op{name: name, in: sizeOf[In](), do: func(w *worker, _ []byte) (int, fuse.Status) {
		return 0, f(w.l.fs, w.cancel, at[In](w.request))
	}}
}

// text is the name that b begins with, ended by a zero byte.
func text(b []byte) string {
	name, _, _ := bytes.Cut(b, []byte{0})
	return string(name)
}

// twoTexts are the two names that b consists of.
func twoTexts(b []byte) (string, string) {
	first, rest, _ := bytes.Cut(b, []byte{0})
	return string(first), text(rest)
}

// names shows the names of a request, for the trace.
func (o *op) names(rest []byte) string {
	switch o.name {
	case "READ", "WRITE", "BATCH_FORGET", "IOCTL", "TMPFILE":
		return ""
	}
	return fmt.Sprintf("%q", bytes.TrimRight(rest[:min(len(rest), 600)], "\x00"))
}

// room is where the data of an answer of n bytes goes; false says that the
// kernel asks for more than was agreed on.
func (w *worker) room(n uint32) ([]byte, bool) {
	if int(n) > len(w.answer)-headerSize {
		return nil, false
	}
	return w.answer[headerSize:][:n:n], true
}

func ignore(*worker, []byte) (int, fuse.Status) { return 0, silent }

func forget(w *worker, _ []byte) (int, fuse.Status) {
	in := at[fuse.ForgetIn](w.request)
	w.l.fs.Forget(in.NodeId, in.Nlookup)
	return 0, silent
}

// forgotten is an entry of BATCH_FORGET.
type forgotten struct{ node, lookups uint64 }

func batchForget(w *worker, rest []byte) (int, fuse.Status) {
	for ; len(rest) >= sizeOf[forgotten](); rest = rest[sizeOf[forgotten]():] {
		f := at[forgotten](rest)
		w.l.fs.Forget(f.node, f.lookups)
	}
	return 0, silent
}

// interrupt ends the wait for another request, if the signal is one that does. If that
// request is not being handled the kernel asks again, as long as it is not answered.
func interrupt(w *worker, _ []byte) (int, fuse.Status) {
	if !w.l.interrupt(at[fuse.InterruptIn](w.request).Unique) {
		return 0, fuse.EAGAIN
	}
	return 0, silent
}

func readlink(w *worker, _ []byte) (int, fuse.Status) {
	target, st := w.l.fs.Readlink(w.cancel, at[header](w.request))
	return copy(w.answer[headerSize:], target), st
}

func symlink(w *worker, rest []byte) (int, fuse.Status) {
	name, target := twoTexts(rest)
	out := at[fuse.EntryOut](w.answer[headerSize:])
	return sizeOf[fuse.EntryOut](), w.l.fs.Symlink(w.cancel, at[header](w.request), target, name, out)
}

// rename is the older form, without flags.
func rename(w *worker, rest []byte) (int, fuse.Status) {
	in := *at[fuse.RenameIn](w.request)
	in.Flags = 0
	from, to := twoTexts(rest)
	return 0, w.l.fs.Rename(w.cancel, &in, from, to)
}

func rename2(w *worker, rest []byte) (int, fuse.Status) {
	from, to := twoTexts(rest)
	return 0, w.l.fs.Rename(w.cancel, at[fuse.RenameIn](w.request), from, to)
}

func read(w *worker, _ []byte) (int, fuse.Status) {
	in := at[fuse.ReadIn](w.request)
	buf, ok := w.room(in.Size)
	if !ok {
		return 0, fuse.EIO
	}
	if w.l.direct != nil {
		return w.l.direct.ReadInto(w.cancel, in, buf)
	}
	r, st := w.l.fs.Read(w.cancel, in, buf)
	if r == nil || st != fuse.OK {
		return 0, st
	}
	defer r.Done()
	b, st := r.Bytes(buf)
	return copy(buf, b), st // onto itself, where the filesystem read into buf
}

func write(w *worker, rest []byte) (int, fuse.Status) {
	n, st := w.l.fs.Write(w.cancel, at[fuse.WriteIn](w.request), rest)
	at[fuse.WriteOut](w.answer[headerSize:]).Size = n
	return sizeOf[fuse.WriteOut](), st
}

func copyFileRange(w *worker, _ []byte) (int, fuse.Status) {
	n, st := w.l.fs.CopyFileRange(w.cancel, at[fuse.CopyFileRangeIn](w.request))
	at[fuse.WriteOut](w.answer[headerSize:]).Size = n
	return sizeOf[fuse.WriteOut](), st
}

func copyFileRange64(w *worker, _ []byte) (int, fuse.Status) {
	if w.l.copier == nil {
		return 0, fuse.ENOSYS
	}
	n, st := w.l.copier.CopyFileRange64(w.cancel, at[fuse.CopyFileRangeIn](w.request))
	at[fuse.CopyFileRangeOut](w.answer[headerSize:]).BytesCopied = n
	return sizeOf[fuse.CopyFileRangeOut](), st
}

func release(fs fsys, c cancel, in *fuse.ReleaseIn) fuse.Status {
	fs.Release(c, in)
	return fuse.OK
}

func releaseDir(fs fsys, _ cancel, in *fuse.ReleaseIn) fuse.Status {
	fs.ReleaseDir(in)
	return fuse.OK
}

// setXAttr takes both forms of the request; which one it is was agreed on.
func setXAttr(w *worker, rest []byte) (int, fuse.Status) {
	in := *at[fuse.SetXAttrIn](w.request)
	if w.l.caps&fuse.CAP_SETXATTR_EXT == 0 {
		in.SetXAttrFlags = 0
	} else {
		rest = rest[min(8, len(rest)):]
	}
	name, value, ok := bytes.Cut(rest, []byte{0})
	if !ok {
		return 0, fuse.EINVAL
	}
	return 0, w.l.fs.SetXAttr(w.cancel, &in, string(name), value)
}

func getXAttr(w *worker, rest []byte) (int, fuse.Status) {
	return w.xattr(func(dest []byte) (uint32, fuse.Status) {
		return w.l.fs.GetXAttr(w.cancel, at[header](w.request), text(rest), dest)
	})
}

func listXAttr(w *worker, _ []byte) (int, fuse.Status) {
	return w.xattr(func(dest []byte) (uint32, fuse.Status) {
		return w.l.fs.ListXAttr(w.cancel, at[header](w.request), dest)
	})
}

// xattr answers with a value, or, if the request has no room for one, with how
// long it is.
func (w *worker) xattr(get func(dest []byte) (uint32, fuse.Status)) (int, fuse.Status) {
	in := at[fuse.GetXAttrIn](w.request)
	dest, ok := w.room(in.Size)
	if !ok {
		return 0, fuse.EIO
	}
	n, st := get(dest)
	if in.Size > 0 {
		return int(n), st
	}
	if st == fuse.ERANGE { // no room is what was asked with
		st = fuse.OK
	}
	*at[fuse.GetXAttrOut](w.answer[headerSize:]) = fuse.GetXAttrOut{Size: n}
	return sizeOf[fuse.GetXAttrOut](), st
}

func readDir(w *worker, _ []byte) (int, fuse.Status) { return w.list(w.l.fs.ReadDir) }

func readDirPlus(w *worker, _ []byte) (int, fuse.Status) { return w.list(w.l.fs.ReadDirPlus) }

func (w *worker) list(f func(cancel, *fuse.ReadIn, *fuse.DirEntryList) fuse.Status) (int, fuse.Status) {
	in := at[fuse.ReadIn](w.request)
	buf, ok := w.room(in.Size)
	if !ok {
		return 0, fuse.EIO
	}
	list := fuse.NewDirEntryList(buf, in.Offset)
	st := f(w.cancel, in, list)
	return len(list.Bytes()), st
}

func ioctl(w *worker, rest []byte) (int, fuse.Status) {
	in := at[fuse.IoctlIn](w.request)
	n := sizeOf[fuse.IoctlOut]() + int(in.OutSize)
	if n > len(w.answer)-headerSize {
		return 0, fuse.EIO
	}
	out := w.answer[headerSize:][:n]
	clear(out)
	st := w.l.fs.Ioctl(w.cancel, in, rest, at[fuse.IoctlOut](out), out[sizeOf[fuse.IoctlOut]():])
	return n, st
}
