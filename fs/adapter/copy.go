package adapter

import (
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"

	"skep/cache/tree"
)

// CopyFileRange64 copies a whole file that is not here into an empty one, by
// reference. For all else the kernel reads and writes, which it does as well as
// we could.
func (f *FS) CopyFileRange64(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint64, fuse.Status) {
	src, ok := f.files.get(in.FhIn)
	dst, also := f.files.get(in.FhOut)
	if !ok || !also {
		return 0, fuse.EBADF
	}
	if in.OffIn != 0 || in.OffOut != 0 || in.Flags != 0 {
		return 0, f.status("copy", in.NodeIdOut, tree.ErrUnsupported)
	}
	n, err := dst.CopyWhole(src.File, int64(min(in.Len, math.MaxInt64)), in.Uid != 0)
	return uint64(n), f.status("copy", in.NodeIdOut, err)
}

// CopyFileRange is CopyFileRange64 where the answer has 32 bits.
func (f *FS) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	small := *in
	small.Len = min(in.Len, math.MaxUint32)
	n, st := f.CopyFileRange64(cancel, &small)
	return uint32(n), st
}
