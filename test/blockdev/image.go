package blockdev

import (
	"bytes"
	"maps"
	"math/rand/v2"
)

const (
	// blockSize is the unit in which images share what they hold.
	blockSize = 4096
	// sector is the unit in which a write is torn.
	sector = 512
)

// Image is what a device holds. Images share blocks, which are never changed.
// Where no block is, there are zeros.
type Image map[int64][]byte

var zeros [blockSize]byte

// Clone returns an image that goes its own way.
func (m Image) Clone() Image { return maps.Clone(m) }

// changes are the blocks that differ in another image; those that are not there are
// empty.
func (m Image) changes(to Image) Image {
	out := Image{}
	for i, b := range to {
		if old := m[i]; old == nil || &old[0] != &b[0] && !bytes.Equal(old, b) {
			out[i] = b
		}
	}
	for i := range m {
		if to[i] == nil {
			out[i] = nil
		}
	}
	return out
}

// apply makes the image the one that has these changes.
func (m Image) apply(changes Image) {
	for i, b := range changes {
		if m[i] = b; len(b) == 0 {
			delete(m, i)
		}
	}
}

// write puts bytes at an offset.
func (m Image) write(p []byte, off int64) {
	for len(p) > 0 {
		at := off % blockSize
		n := min(int64(len(p)), blockSize-at)
		b := make([]byte, blockSize)
		if n < blockSize {
			copy(b, m[off/blockSize])
		}
		copy(b[at:], p[:n])
		if m[off/blockSize] = b; bytes.Equal(b, zeros[:]) {
			delete(m, off/blockSize)
		}
		p, off = p[n:], off+n
	}
}

// read fills p with what is at an offset.
func (m Image) read(p []byte, off int64) {
	for len(p) > 0 {
		at := off % blockSize
		n := min(int64(len(p)), blockSize-at)
		if b := m[off/blockSize]; b != nil {
			copy(p[:n], b[at:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+n
	}
}

// Event is a write, or, without data, a flush.
type Event struct {
	Off  int64
	Data []byte
}

// IsFlush reports whether the event is a flush.
func (e Event) IsFlush() bool { return e.Data == nil }

// after is the image after some events.
func (m Image) after(events []Event) Image {
	m = m.Clone()
	for _, e := range events {
		m.write(e.Data, e.Off)
	}
	return m
}

// Loss says what becomes of writes that no flush followed.
type Loss struct {
	Name string
	// keep reports what of write i of n gets to the disk.
	keep func(i, n int) fate
}

type fate int

const (
	lost fate = iota
	kept
	torn // some of its sectors
)

// Losses are ways to lose what was not flushed: nothing, all, the last write but
// for some sectors, the first half, and some at random.
func Losses(r *rand.Rand, random int) []Loss {
	out := []Loss{
		{"nothing", func(int, int) fate { return kept }},
		{"all", func(int, int) fate { return lost }},
		{"part of the last", func(i, n int) fate {
			if i == n-1 {
				return torn
			}
			return kept
		}},
		{"what came first", func(i, n int) fate {
			if i < n/2 {
				return lost
			}
			return kept
		}},
	}
	for range random {
		seed := r.Uint64()
		out = append(out, Loss{"at random", func(i, _ int) fate { return fate(rand.New(rand.NewPCG(seed, uint64(i))).IntN(3)) }})
	}
	return out
}

// PowerLoss returns what is on a device that held an image when the power goes
// after some events.
func PowerLoss(before Image, events []Event, loss Loss) Image {
	flushed := 0
	for i, e := range events {
		if e.IsFlush() {
			flushed = i
		}
	}
	m := before.after(events[:flushed])
	left := events[flushed:]
	for i, e := range left {
		switch loss.keep(i, len(left)) {
		case kept:
			m.write(e.Data, e.Off)
		case torn:
			m.tear(e, i)
		}
	}
	return m
}

// Unflushed is how many of the events are writes that no flush followed.
func Unflushed(events []Event) int {
	n := 0
	for n < len(events) && !events[len(events)-1-n].IsFlush() {
		n++
	}
	return n
}

// tear writes some sectors of a write. The first block is written or not: ext4 has its
// superblock there, with one checksum over two sectors, and cannot be mounted if a disk
// tears it.
func (m Image) tear(e Event, seed int) {
	r := rand.New(rand.NewPCG(uint64(seed), uint64(len(e.Data))))
	unit := sector
	if e.Off < blockSize {
		unit = blockSize
	}
	for at := 0; at < len(e.Data); at += unit {
		if r.IntN(2) == 0 {
			m.write(e.Data[at:min(at+unit, len(e.Data))], e.Off+int64(at))
		}
	}
}
