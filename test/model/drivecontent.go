package model

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"skep/cache/tree"
)

// Writer is what is written, and flushed, behind the tree's back.
type Writer interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Datasync() error
}

// content does an operation on what is in an open file.
func (d *Drive) content(h *openFile, op Op) ([]byte, error) {
	var err error
	switch op.Kind {
	case Write, WriteTo, Append:
		err = d.write(h, op.Off, op.Bytes())
	case Store, StoreTo:
		err = d.store(h, op)
	case TruncateOpen:
		_, err = d.Tree.SetAttr(ctx, h.f.Ino(), tree.SetAttr{Size: &op.Len, File: h.f})
	case Punch, PunchOpen:
		err = h.f.Allocate(ctx, op.Off, op.Len, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE)
	case Zero:
		err = h.f.Allocate(ctx, op.Off, op.Len, unix.FALLOC_FL_ZERO_RANGE)
	case Allocate:
		err = h.f.Allocate(ctx, op.Off, op.Len, 0)
	case Read, ReadFrom:
		p := make([]byte, op.Len)
		n, err := h.f.ReadAt(ctx, p, op.Off)
		return p[:n], err
	case Fsync, FsyncOpen:
		err = h.f.Sync(ctx, false)
	case Fdatasync:
		err = h.f.Sync(ctx, true)
	}
	return nil, err
}

// copy has the tree copy a whole file, or reads and writes, as the kernel does.
func (d *Drive) copy(from tree.Attr, op Op) error {
	to, err := d.file(op.To)
	if err != nil {
		return err
	}
	src, err := d.Tree.Open(ctx, from.Ino, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer src.Release()
	dst, err := d.Tree.Open(ctx, to.Ino, os.O_WRONLY)
	if err != nil {
		return err
	}
	defer dst.Release()
	p := make([]byte, min(op.Len, from.Size))
	if from.Ino == to.Ino && op.Off < int64(len(p)) {
		return unix.EINVAL
	}
	if op.Off == 0 {
		if _, err := dst.CopyWhole(src, op.Len, false); !errors.Is(err, tree.ErrUnsupported) {
			return err
		}
	}
	n, err := src.ReadAt(ctx, p, 0)
	if n == 0 || err != nil {
		return err
	}
	return d.write(&openFile{f: dst}, op.Off, p[:n])
}

// write writes as the kernel would: past the daemon where it may.
func (d *Drive) write(h *openFile, off int64, p []byte) error {
	if h.flags&os.O_APPEND != 0 {
		a, err := d.Tree.Attr(ctx, h.f.Ino())
		if err != nil {
			return err
		}
		off = a.Size
	}
	if fd, ok := h.f.Passthrough(); ok {
		b := d.Backing(fd)
		_, err := b.WriteAt(p, off)
		if err == nil && h.flags&(os.O_SYNC|unix.O_DSYNC) != 0 {
			err = b.Datasync()
		}
		return err
	}
	_, err := h.f.WriteAt(ctx, p, off, false)
	return err
}

// store writes through a mapping: within the file, whatever its handle says.
func (d *Drive) store(h *openFile, op Op) error {
	a, err := d.Tree.Attr(ctx, h.f.Ino())
	if err != nil {
		return err
	}
	end := min(op.Off+op.Len, a.Size)
	if op.Off >= end {
		return nil
	}
	return d.write(&openFile{f: h.f}, op.Off, op.Bytes()[:end-op.Off])
}
