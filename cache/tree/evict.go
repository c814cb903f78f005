package tree

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"skep/cache/backing"
	"skep/cache/disk"
	"skep/chunker/dag"
)

// Resident is a file whose content, or a part of it, is in a backing file.
type Resident struct {
	Ino   Ino
	Local int64     // bytes that the backing file takes
	Used  time.Time // when it was used last, as far as is known
	// Kept says that it may not be let go of now: no commit has taken it, it
	// is open, or pinned. Partly says that nevertheless some ranges of it may:
	// those that a commit has, of a file that is open through the daemon.
	Kept, Partly bool
}

// Residents looks at up to n backing files, from a number on, and calls fn for
// those whose inode is known. It returns where to go on; 0 when there are no
// more. Numbers rise as files come here, so that the order is that of their
// arrival.
func (t *Tree) Residents(from uint64, n int, fn func(Resident)) (next uint64, err error) {
	type named struct {
		ino    Ino
		number uint64
	}
	var found []named
	err = t.st.Scan(backingKey(from), []byte{tableBacking + 1}, func(k, v []byte) bool {
		if m, err := parseMark(k); err == nil {
			found = append(found, named{Ino(valueUint64(v)), uint64(m.Dir)})
		}
		return len(found) < n
	})
	if err != nil {
		return 0, err
	}
	for _, f := range found {
		if r, ok := t.resident(f.ino, f.number); ok {
			fn(r)
		}
		next = f.number + 1
	}
	if len(found) < n {
		next = 0
	}
	return next, nil
}

// resident describes the file that a backing file belongs to, without bringing
// its inode into memory.
func (t *Tree) resident(ino Ino, number uint64) (Resident, bool) {
	in, _ := t.inodes.find(ino)
	if in == nil {
		r, err := t.rowNow(ino)
		if err != nil || r.backing != number {
			return Resident{}, false
		}
		in = &inode{ino: ino, row: r}
	} else {
		defer t.release(in)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.row.backing != number || !in.row.has(flagBacking) {
		return Resident{}, false
	}
	r := Resident{Ino: ino, Local: in.row.local, Used: in.lastUse(), Kept: in.mustStay() != nil}
	r.Partly = r.Kept && t.mayGoPartly(in)
	if t.Pinned(ino) {
		r.Kept, r.Partly = true, false
	}
	return r, true
}

// lastUse is when an inode was read, written or opened last, as far as memory
// or its row tells; in.mu is held.
func (in *inode) lastUse() time.Time {
	u := in.used
	for _, t := range []Time{in.row.atime, in.row.mtime, in.row.ctime} {
		if newer(t, u) {
			u = t
		}
	}
	return time.Unix(u.Sec, int64(u.Nsec))
}

// Why content may not be let go of.
var (
	errOpen     = errors.New("the file is open")
	errUnsynced = errors.New("no commit has taken the content")
	errNothing  = errors.New("the content is not here")
)

// mustStay says why the content of a file may not be let go of; nil if it may.
// in.mu is held.
func (in *inode) mustStay() error {
	r := &in.row
	switch {
	case !r.isFile() || !r.has(flagBacking):
		return errNothing
	case in.opens > 0 || in.writing || in.frozen != nil || in.orphan || in.stale:
		return errOpen
	case r.has(flagDirty) || r.content.IsZero() || r.contentSize != r.size:
		return errUnsynced
	}
	return nil
}

// mayGoPartly reports whether ranges of a file that must stay may be let go of:
// it is read and written through the daemon, which knows what changed since the
// newest commit, and no commit is under way, which would make that the newest
// but one; in.mu is held.
func (t *Tree) mayGoPartly(in *inode) bool {
	r := &in.row
	return r.isFile() && r.has(flagBacking) && !r.content.IsZero() && !in.passthrough &&
		in.frozen == nil && in.before == nil && !in.orphan && !in.stale && t.currentCut() == nil
}

const (
	// evictStep is how much of a large file is let go of at a time.
	evictStep = 32 << 20
	// keptHead is how much of the beginning of a large file goes last: who
	// looks at a file again begins there.
	keptHead = dag.ChunkSize
	// mostHoles is up to which length holes go with the data before them: all that goes has
	// to be asked for, chunk by chunk, and each that stays is a range of its own.
	mostHoles = 4 << 30
	// mostExtents is more than the local filesystem takes to know what is where in a file.
	mostExtents = 64 << 10
)

// Evict lets go of content that can be had again: of a small file all of it, of
// a larger one, or one that is open, some ranges, the last ones first. It returns how many bytes come
// free by it, which they do with FinishEvictions; 0 if the file is in use, or
// its content is not safely out. From now on who reads it fetches it. With open,
// ranges of a file that is open, or partly unsynced, may go too.
func (t *Tree) Evict(ctx context.Context, ino Ino, open bool) (freed int64, err error) {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return 0, err
	}
	defer t.release(in)
	if t.Pinned(ino) {
		return 0, nil
	}
	in.mu.Lock()
	going, err := t.choose(in, open)
	in.mu.Unlock()
	if err != nil || len(going.ranges) == 0 {
		return 0, ignoreKept(err)
	}
	if t.opt.Held != nil {
		for _, r := range going.ranges {
			if err := t.opt.Held(ctx, going.of, r.From/dag.ChunkSize, (r.To+dag.ChunkSize-1)/dag.ChunkSize); err != nil {
				return 0, fmt.Errorf("%s: %w", t.Path(ino), err)
			}
		}
	}
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if again, err := t.choose(in, open); err != nil || !again.equal(going) {
		return 0, ignoreKept(err) // it was used meanwhile
	}
	return t.letGo(in, going.ranges, going.bytes)
}

// ignoreKept makes that a file is in use no error.
func ignoreKept(err error) error {
	if errors.Is(err, errOpen) || errors.Is(err, errUnsynced) || errors.Is(err, errNothing) {
		return nil
	}
	return err
}

// going is what is to be let go of next.
type going struct {
	of     dag.File // the content
	ranges []backing.Range
	bytes  int64 // that come free by it
}

func (g going) equal(other going) bool {
	return g.of == other.of && g.bytes == other.bytes && slices.Equal(g.ranges, other.ranges)
}

// choose picks what to let go of next; in.mu is held.
func (t *Tree) choose(in *inode, open bool) (going, error) {
	err := in.mustStay()
	partly := err != nil && open && t.mayGoPartly(in)
	if err != nil && !partly {
		return going{}, err
	}
	if err := t.readRanges(in); err != nil {
		return going{}, err
	}
	here := in.here()
	if partly {
		here = in.cleanHere()
	}
	g := going{of: in.row.committed()}
	g.ranges, g.bytes = t.lastData(in, here.List())
	if partly && g.bytes == 0 {
		g.ranges = nil // holes alone
	}
	return g, nil
}

// cleanHere is the set of ranges that are here as the newest commit has them,
// in whole chunks; in.mu is held, and the ranges are in memory.
func (in *inode) cleanHere() backing.Ranges {
	var out backing.Ranges
	if in.whole {
		return out
	}
	end := min(in.row.size, in.row.contentSize) / dag.ChunkSize * dag.ChunkSize
	here := in.here()
	for _, r := range here.Within(0, end) {
		out.Add((r.From+dag.ChunkSize-1)/dag.ChunkSize*dag.ChunkSize, r.To/dag.ChunkSize*dag.ChunkSize)
	}
	for _, r := range in.dirty.List() {
		out.Remove(r.From/dag.ChunkSize*dag.ChunkSize, (r.To+dag.ChunkSize-1)/dag.ChunkSize*dag.ChunkSize)
	}
	return out
}

// here is the set of ranges of a backing file that hold content; in.mu is held,
// and the ranges are in memory.
func (in *inode) here() backing.Ranges {
	if in.row.has(flagPartial) {
		return in.valid.Clone()
	}
	var all backing.Ranges
	all.Add(0, in.row.size)
	return all
}

// lastData returns the last ranges of a list that is here, as lastRanges does, and how
// much data is in them. Holes at the end, which take no room, do not count, and go with
// that if they are not too large; in.mu is held.
func (t *Tree) lastData(in *inode, list []backing.Range) (out []backing.Range, bytes int64) {
	whole := length(list)
	if in.row.local >= whole {
		out = lastRanges(list, evictStep, keptHead)
		return out, length(out)
	}
	f := in.file
	if f == nil {
		var err error
		if f, err = t.files.Open(in.row.backing); err != nil {
			out = lastRanges(list, evictStep, keptHead)
			return out, length(out) // as if it had no holes
		}
		defer f.Close()
	}
	data := endWithData(f, list)
	if len(data) == 0 && whole > mostHoles {
		if in.row.local <= mostExtents {
			return nil, 0
		}
		data = list // it takes room that nothing was written to
	}
	out = lastRanges(data, evictStep, keptHead)
	bytes = dataIn(f, out)
	if length(out) == length(data) && whole <= mostHoles {
		return list, bytes
	}
	if end := list[len(data)-1].To; end-out[0].To <= mostHoles {
		out[0].To = end
	}
	return out, bytes
}

func length(list []backing.Range) (n int64) {
	for _, r := range list {
		n += r.To - r.From
	}
	return n
}

// endWithData is a list without the holes at its end, as far as they are whole chunks.
func endWithData(f disk.File, list []backing.Range) []backing.Range {
	list = slices.Clone(list)
	for n := len(list); n > 0; n-- {
		if end := dataEnd(f, list[n-1]); end > list[n-1].From {
			list[n-1].To = end
			return list[:n]
		}
	}
	return nil
}

// dataEnd is where the last chunk of a range ends that has data, or where the range
// begins. That there is data behind an offset is asked for a few of them only: the range
// may be of any size.
func dataEnd(f disk.File, r backing.Range) int64 {
	first, last := r.From/dag.ChunkSize, (r.To+dag.ChunkSize-1)/dag.ChunkSize
	at := func(i int) int64 { return min(max(r.From, (first+int64(i))*dag.ChunkSize), r.To) }
	return at(sort.Search(int(last-first), func(i int) bool {
		from, _ := dataFrom(f, at(i), r.To)
		return from >= r.To
	}))
}

// dataIn is how many bytes of data are in some ranges.
func dataIn(f disk.File, list []backing.Range) (n int64) {
	for _, r := range list {
		for at := r.From; at < r.To; {
			from, to := dataFrom(f, at, r.To)
			n += max(0, min(to, r.To)-from)
			at = max(to, at+1)
		}
	}
	return n
}

// lastRanges returns the last ranges of a list, whole chunks of some n bytes in
// all, and all of it if no more than head bytes would be left.
func lastRanges(list []backing.Range, n, head int64) []backing.Range {
	var out []backing.Range
	for i := len(list) - 1; i >= 0 && n > 0; i-- {
		r := list[i]
		if r.To-r.From > n {
			r.From = (r.To - n) / dag.ChunkSize * dag.ChunkSize
			r.From = max(r.From, list[i].From)
		}
		if i == 0 && r.From-list[0].From <= head {
			r.From = list[0].From
		}
		n -= r.To - r.From
		out = append(out, r)
	}
	return out
}

// letGo journals that ranges of a file, with so many bytes of data, are not here any more.
// The bytes go when that is on the disk; the gate and in.mu are held.
func (t *Tree) letGo(in *inode, ranges []backing.Range, bytes int64) (freed int64, err error) {
	left := in.here()
	for _, r := range ranges {
		left.Remove(r.From, r.To)
	}
	if left.Empty() && in.opens == 0 && !in.row.has(flagDirty) {
		return t.letGoWhole(in)
	}
	if in.gained || in.added.n > 0 { // what stays was brought here, and the ranges row does not say so yet
		if err := t.syncBacking(in); err != nil {
			return 0, err
		}
		defer t.closeBacking(in)
	}
	freed = min(bytes, in.row.local)
	t.going64.Add(freed)
	c, e := t.lockedChange(in)
	c.b.Freeing()
	r := e.local()
	if !r.has(flagPartial) {
		r.room = r.local
	}
	r.flags |= flagPartial
	r.local -= freed
	old := in.valid
	in.valid = left
	c.putRanges(in)
	if err := c.applyLocked(); err != nil {
		in.valid = old
		t.going64.Add(-freed)
		return 0, err
	}
	in.gained = false
	t.punchLater(in, ranges)
	return freed, nil
}

func (t *Tree) letGoWhole(in *inode) (int64, error) {
	c, e := t.lockedChange(in)
	c.b.Freeing()
	r := e.local()
	number, freed := r.backing, r.local
	t.going64.Add(freed)
	if !r.has(flagPartial) {
		r.room = r.local
	}
	r.flags &^= flagBacking | flagPartial
	r.backing, r.local = 0, 0
	c.b.Delete(backingKey(number))
	c.dropRanges(in)
	if err := c.applyLocked(); err != nil {
		t.going64.Add(-freed)
		return 0, err
	}
	if in.file != nil {
		_ = in.file.Close()
		in.file = nil
	}
	in.valid.Clear()
	in.dirty.Clear()
	in.whole, in.ranged, in.loose, in.gained, in.ahead, in.lastChunk = false, true, 0, false, 0, 0
	t.removeMu.Lock()
	t.removals = append(t.removals, removal{number: number, seq: in.seq, unread: true})
	t.removeMu.Unlock()
	return freed, nil
}

// closeFile closes the backing file of an inode that nobody uses.
func (in *inode) closeFile() {
	if in.file != nil {
		_ = in.file.Close()
		in.file = nil
	}
}
