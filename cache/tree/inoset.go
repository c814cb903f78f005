package tree

// inoSet is a set of inode numbers. It has a bit for each, as those of files that
// were made together lie close together: of a million it takes less than a MiB.
type inoSet map[Ino]uint64

func (s inoSet) add(ino Ino)      { s[ino/64] |= 1 << (ino % 64) }
func (s inoSet) has(ino Ino) bool { return s[ino/64]>>(ino%64)&1 == 1 }
