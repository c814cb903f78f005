package memdisk

import (
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"slices"
)

// sector is the unit in which a write is torn.
const sector = 512

// Kill returns a disk as it is after the process ended when the first n events
// had happened: the kernel still has all of them.
func (d *Disk) Kill(n int) *Disk {
	return d.crash(n, func(int, Event) Fate { return Kept })
}

// Fate is what becomes of an event that no flush had ordered to the disk.
type Fate int

// The fates.
const (
	Lost Fate = iota
	Kept
	Torn // some sectors of a write are kept
)

// Loss decides the fate of event i.
type Loss struct {
	Name string
	fate func(i int, e Event) Fate
}

// All loses everything that no flush had ordered to the disk.
var All = Loss{"all", func(int, Event) Fate { return Lost }}

// PowerLoss returns a disk as it is after the power went when the first n
// events had happened. Flushes that were among them hold; of the rest, loss
// decides.
func (d *Disk) PowerLoss(n int, loss Loss) *Disk {
	d.mu.Lock()
	settled := d.settled(n)
	d.mu.Unlock()
	return d.crash(n, func(i int, e Event) Fate {
		if settled[i] {
			return Kept
		}
		return loss.fate(i, e)
	})
}

// settled tells which of the first n events a flush had ordered to the disk.
func (d *Disk) settled(n int) []bool {
	out := make([]bool, n)
	content, sizes, names := map[uint64]bool{}, map[uint64]bool{}, map[uint64]bool{}
	for i := n - 1; i >= 0; i-- {
		switch e := d.log[i]; e.Kind {
		case Flush:
			content[e.File], sizes[e.File] = true, true
		case FlushDir:
			names[e.File] = true
		case failed + Flush:
			content[e.File] = false
		case failed + FlushAll:
			clear(content)
		case FlushAll:
			for j := range i {
				out[j] = true
			}
			return out
		case Link, Unlink, Rename:
			out[i] = names[e.File]
		case Resize:
			out[i] = sizes[e.File]
		default:
			out[i] = content[e.File]
		}
	}
	return out
}

func (d *Disk) crash(n int, fate func(int, Event) Fate) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := maps.Clone(d.base)
	owned := map[uint64]bool{}
	for i, e := range d.log[:n] {
		if e.isFlush() {
			continue
		}
		switch fate(i, e) {
		case Kept:
			m.apply(e, owned)
		case Torn:
			for _, part := range tear(e, i) {
				m.apply(part, owned)
			}
		}
	}
	return from(m.named(), d.next, d.clock)
}

// named is an image without the files that no name leads to.
func (m image) named() image {
	out := image{}
	m.addTo(out, rootFile)
	return out
}

func (m image) addTo(out image, n uint64) {
	out[n] = m[n]
	for _, kid := range m[n].kids {
		m.addTo(out, kid)
	}
}

// tear returns the sectors of a write that reached the disk.
func tear(e Event, seed int) []Event {
	if e.Kind != Write {
		return nil
	}
	r := rand.New(rand.NewPCG(uint64(seed), uint64(len(e.Data))))
	var out []Event
	for at := e.Off; at < e.Off+int64(len(e.Data)); {
		end := min((at/sector+1)*sector, e.Off+int64(len(e.Data)))
		if r.IntN(2) == 0 {
			part := e
			part.Off, part.Data = at, e.Data[at-e.Off:end-e.Off]
			out = append(out, part)
		}
		at = end
	}
	return out
}

// Fold makes what a flush has ordered to the disk, from the beginning up to the
// first event that none has, what was there when the events began.
func (d *Disk) Fold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	settled, n := d.settled(len(d.log)), 0
	for n < len(d.log) && (settled[n] || d.log[n].isFlush()) {
		n++
	}
	owned := map[uint64]bool{}
	d.base = maps.Clone(d.base)
	for _, e := range d.log[:n] {
		if !e.isFlush() {
			d.base.apply(e, owned)
		}
	}
	d.log = slices.Clone(d.log[n:])
}

// Settle makes what is there now what was there when the events began, so that what
// came before is forgotten.
func (d *Disk) Settle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.base, d.owned, d.log = maps.Clone(d.now), map[uint64]bool{}, nil
}

// Losses lists ways in which what is not safe at event n can get lost: all,
// nothing, all but one file, one file alone, names without content, content
// without names, what came after a moment, and some at random.
func (d *Disk) Losses(n int, r *rand.Rand, random int) []Loss {
	d.mu.Lock()
	defer d.mu.Unlock()
	settled := d.settled(n)
	var open []int
	files := map[uint64]string{}
	for i, e := range d.log[:n] {
		if !settled[i] && !e.isFlush() {
			open = append(open, i)
			files[e.File] = e.Path
		}
	}
	lost := func(name string, is func(int, Event) bool) Loss {
		return Loss{name, func(i int, e Event) Fate {
			if is(i, e) {
				return Lost
			}
			return Kept
		}}
	}
	out := []Loss{lost("nothing", func(int, Event) bool { return false })}
	if len(open) == 0 {
		return out
	}
	isName := func(e Event) bool { return e.Kind == Link || e.Kind == Unlink || e.Kind == Rename }
	out = append(out,
		All,
		lost("content", func(_ int, e Event) bool { return !isName(e) }),
		lost("names", func(_ int, e Event) bool { return isName(e) }))
	if len(files) > 1 {
		for _, f := range slices.Sorted(maps.Keys(files)) {
			out = append(out,
				lost("of "+files[f], func(_ int, e Event) bool { return e.File == f }),
				lost("all but "+files[f], func(_ int, e Event) bool { return e.File != f }))
		}
	}
	last := open[len(open)-1]
	out = append(out, Loss{"the last is torn", func(i int, e Event) Fate {
		if i == last {
			return Torn
		}
		return Kept
	}})
	for range random {
		seed := r.Uint64()
		out = append(out, Loss{"at random", func(i int, _ Event) Fate {
			return Fate(rand.New(rand.NewPCG(seed, uint64(i))).IntN(3))
		}})
	}
	return out
}

var hashSeed = maphash.MakeSeed()

// Hash is the same for disks that hold the same, but for the times.
func (d *Disk) Hash() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now.hash(rootFile)
}

// hash is that of an inode and of all below it.
func (m image) hash(n uint64) uint64 {
	in := m[n]
	sum := in.ownHash()
	for _, kid := range in.kids {
		sum += maphash.Comparable(hashSeed, [2]uint64{kid, m.hash(kid)})
	}
	return sum
}

// ownHash is that of a file's content, or of a directory's names. It is
// remembered: inodes of an image that nobody changes any more are shared.
func (n *inode) ownHash() uint64 {
	if n.hash != 0 {
		return n.hash
	}
	var h maphash.Hash
	h.SetSeed(hashSeed)
	_, _ = h.Write(n.b)
	for _, r := range n.there.List() {
		maphash.WriteComparable(&h, r)
	}
	n.hash = h.Sum64()
	for name, kid := range n.kids {
		n.hash += maphash.Comparable(hashSeed, name) ^ kid
	}
	return n.hash
}
