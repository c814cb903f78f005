package tree

const (
	// foldSize is the most that the kernel keeps of a file's content as one piece,
	// and the alignment of such a piece.
	foldSize = 2 << 20
	// fineWrite is what a write is smaller than that pieces are made small for.
	fineWrite = 64 << 10
	// fineFolds bounds what is remembered of a file: what is further from its
	// beginning (64 GiB) stays as it is.
	fineFolds = 32 << 10
)

// foldset is a set of pieces of foldSize, by their numbers.
type foldset []uint64

// add adds a piece and reports whether it is new.
func (s *foldset) add(n int64) bool {
	for int64(len(*s)) <= n/64 {
		*s = append(*s, 0)
	}
	bit := uint64(1) << (n % 64)
	old := (*s)[n/64]
	(*s)[n/64] = old | bit
	return old&bit == 0
}

// refine prepares a backing file for a small write over what is there. The kernel
// keeps content in pieces as large as those that it was written or read in, and ext4
// goes through all blocks of a piece for each write into it, which for 4 KiB costs
// more than all the rest. So such a piece is dropped from memory before the first
// small write into it since the kernel had the file to itself, and comes back in small
// ones. It is as if memory had been short: what waits to be written stays. What was
// read through the mount the kernel has once more, above. in.mu is held.
func (in *inode) refine(off, n int64) {
	if n >= fineWrite || off >= in.row.size || in.flushErr != nil {
		return
	}
	for fold := off / foldSize; fold <= (off+n-1)/foldSize && fold < fineFolds; fold++ {
		if in.fine.add(fold) {
			_ = in.file.Reread(fold*foldSize, foldSize) // at worst, it stays large
		}
	}
}
