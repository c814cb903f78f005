package model

import (
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// Generator makes operations from a source of chance. They often fail: what
// fails must fail alike.
type Generator struct {
	Rand *rand.Rand
	// Dirs and Names are what paths are made of; the root is "".
	Dirs, Names []string
	// Sizes are those of files and writes.
	Sizes []int64
	// Handles is how many files may be open at once.
	Handles int
	// Flush has every store into a mapping flushed: others need not be there when the
	// server is killed.
	Flush bool
	// Maintenance is what programs do not see and how often it happens: one in
	// so many operations, of each.
	Maintenance map[Kind]int

	fill byte
}

// weights say how often each kind of operation is made.
var weights = map[Kind]int{
	Create: 8, Mkdir: 3, Symlink: 1, Mkfifo: 1, Link: 4, Unlink: 6, Rmdir: 3, Rename: 8, NoReplace: 1, Exchange: 3,
	Write: 12, Append: 6, Truncate: 6, Empty: 3, Punch: 4, Zero: 3, Allocate: 2, Store: 3, Chmod: 2, Touch: 2, SetXattr: 3,
	RemoveXattr: 1, Read: 6, Copy: 3, Fsync: 6, Fdatasync: 2, SyncDir: 3, Sync: 2,
	Open: 8, Close: 5, WriteTo: 8, ReadFrom: 4, TruncateOpen: 3, PunchOpen: 2, StoreTo: 3, FsyncOpen: 3, Tmpfile: 1, LinkOpen: 1,
	Map: 5, StoreMapped: 8, LoadMapped: 4, Unmap: 2,
}

var order, total = func() (out []Kind, n int) {
	for k := range kinds {
		if weights[k] > 0 {
			out, n = append(out, k), n+weights[k]
		}
	}
	return out, n
}()

// Next makes an operation.
func (g *Generator) Next() Op {
	for k := Commit; k < kinds; k++ {
		if n := g.Maintenance[k]; n > 0 && g.Rand.IntN(n) == 0 {
			return Op{Kind: k, Path: g.path()}
		}
	}
	k := g.kind()
	for k >= Open && g.Handles == 0 {
		k = g.kind()
	}
	return g.make(k)
}

func (g *Generator) kind() Kind {
	x := g.Rand.IntN(total)
	for _, k := range order {
		if x -= weights[k]; x < 0 {
			return k
		}
	}
	panic("BUG: model: weights do not add up")
}

func (g *Generator) make(k Kind) Op {
	op := Op{Kind: k, Path: g.path()}
	if k >= Open {
		op.Handle = g.Rand.IntN(g.Handles)
	}
	switch k {
	case Link, Rename, NoReplace, Exchange, LinkOpen:
		op.To = g.path()
	case Copy:
		op.To, op.Off, op.Len = g.path(), g.size(), max(1, g.size())
		if g.Rand.IntN(2) == 0 { // all of it
			op.Off, op.Len = 0, 1<<30
		}
	case Symlink:
		op.To = "nowhere"
	case Map:
		if g.Rand.IntN(2) == 0 {
			op.Path = "" // that of a handle
		}
	case Write, Append, Store, WriteTo, StoreTo, StoreMapped, LoadMapped, Punch, Zero, PunchOpen, Allocate, Read, ReadFrom:
		op.Off, op.Len = g.size(), max(1, g.size())
		g.fill++
		op.Fill = g.fill
		g.flag(&op)
	case Truncate, TruncateOpen, Touch:
		op.Len = g.size()
	case Chmod:
		op.Mode = []uint32{0o600, 0o755, 0o444, 0o4755}[g.Rand.IntN(4)]
	case SetXattr, RemoveXattr:
		op.Name, op.Len = []string{"user.a", "user.b"}[g.Rand.IntN(2)], int64(g.Rand.IntN(200))
		g.fill++
		op.Fill = g.fill
	case Mkdir, Rmdir, SyncDir, Tmpfile:
		if dir := g.Dirs[g.Rand.IntN(len(g.Dirs))]; dir != "" || k == SyncDir || k == Tmpfile {
			op.Path = dir
		}
	case Open:
		op.Flags = []int{os.O_RDONLY, os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_CREATE, os.O_WRONLY | os.O_CREATE | os.O_TRUNC,
			os.O_RDWR | os.O_TRUNC, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_APPEND, os.O_RDWR | unix.O_SYNC}[g.Rand.IntN(9)]
	}
	return op
}

// flag makes some writes synchronous, and some reads and writes go past the
// page cache, which takes whole blocks.
func (g *Generator) flag(op *Op) {
	switch {
	case op.Kind == Write && g.Rand.IntN(6) == 0, op.Kind == StoreMapped && (g.Flush || g.Rand.IntN(2) == 0):
		op.Flags = os.O_SYNC
	case (op.Kind == Write || op.Kind == Read) && g.Rand.IntN(6) == 0:
		op.Flags = unix.O_DIRECT
		op.Off, op.Len = op.Off&^(block-1), (op.Len+block-1)&^(block-1)
	}
}

// block is what O_DIRECT reads and writes at once, of any local filesystem.
const block = 4096

func (g *Generator) path() string {
	return Join(g.Dirs[g.Rand.IntN(len(g.Dirs))], g.Names[g.Rand.IntN(len(g.Names))])
}

// size is one of Sizes, often a little more or less.
func (g *Generator) size() int64 {
	n := g.Sizes[g.Rand.IntN(len(g.Sizes))]
	switch g.Rand.IntN(3) {
	case 0:
		return n
	case 1:
		return n + int64(g.Rand.IntN(64))
	}
	return g.Rand.Int64N(n + 1)
}
