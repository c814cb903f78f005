package hash

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// wide says whether compress16 can be used.
var wide = cpu.X86.HasAVX512F

// compress16 hashes sixteen inputs of so many blocks of 64 bytes each, which begin a
// stride apart, to sixteen chaining values. counters are the low and the high halves of
// each input's. The first and the last block have flags of their own; a single one has
// those of the first.
//
//go:noescape
func compress16(out *[lanes]CV, in *byte, stride, blocks uintptr, key *CV, counters *[2][lanes]uint32, first, mid, last uint32)

// bytesOf is where chaining values lie, the least byte of each word first.
func bytesOf(cvs *[2 * lanes]CV) *byte { return (*byte)(unsafe.Pointer(cvs)) }
