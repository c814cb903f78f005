package tree

import (
	"context"
	"fmt"
	"io"

	"skep/cache/backing"
	"skep/cache/disk"
)

// frozen is the content of a dirty file as it was at the cut of the commit
// under way. It comes into being when the file is first written after the cut,
// and ends when the commit has taken it, or has ended.
type frozen struct {
	file   disk.File // the backing file as of the cut; the inode's own while shared
	shared bool      // the inode still writes to file: old bytes are preserved first
	saved  disk.File // where they are preserved, at the same offsets
	copied int64     // bytes that saved takes: see countCopy
	have   backing.Ranges

	size         int64
	valid, dirty backing.Ranges
	whole        bool
}

// freeze sets the content of a dirty file aside for the commit under way, if
// that has not taken it yet; in.mu is held, and the ranges are in memory. Where that
// fails, the content must not be overwritten.
func (t *Tree) freeze(in *inode) error {
	cut := t.currentCut()
	if cut == nil || in.frozen != nil || in.row.dirtyEpoch > cut.epoch || cut.hasTaken(in.ino) || !in.row.has(flagBacking) {
		return nil
	}
	if err := t.openBacking(in); err != nil {
		return err
	}
	if !cut.froze(in) {
		return nil
	}
	in.frozen = &frozen{file: in.file, shared: true, size: in.row.size,
		valid: in.valid.Clone(), dirty: in.dirty.Clone(), whole: in.whole}
	in.before = &dirtied{in.dirty.Clone(), in.whole}
	in.dirty.Clear()
	in.whole = in.passthrough && in.writers > 0 // the kernel may change any of it
	return nil
}

// dirtied is what changed of a file since a commit.
type dirtied struct {
	dirty backing.Ranges
	whole bool
}

// thaw lets go of frozen content; in.mu is held.
func (t *Tree) thaw(in *inode) {
	fr := in.frozen
	if fr == nil {
		return
	}
	in.frozen = nil
	if fr.saved != nil {
		_ = fr.saved.Close()
		t.copies64.Add(-fr.copied)
	}
	if fr.file != in.file {
		_ = fr.file.Close()
	} else if in.opens == 0 && in.flush == nil { // else whoever flushes it closes it
		in.closeFile()
	}
}

// preserve copies [from, to) of a frozen file aside before it is overwritten;
// in.mu is held.
func (t *Tree) preserve(in *inode, from, to int64) error {
	fr := in.frozen
	if fr == nil || !fr.shared || fr.file != in.file {
		return nil
	}
	for _, r := range fr.have.Missing(from, min(to, fr.size)) {
		if err := t.preserveRange(fr, r); err != nil {
			return fmt.Errorf("%s: keep what a commit is reading: %w", t.Path(in.ino), noSpace(err))
		}
	}
	return nil
}

// preserveStep is how much of a frozen file is copied aside at a time.
const preserveStep = 8 << 20

// preserveAhead copies [from, to) of a file aside, a step at a time, if that is much and
// a commit is still to read it: who is about to overwrite it would hold up all others
// that want the file. The caller holds no lock, and will meet what fails here, unless it is
// that ctx has ended.
func (t *Tree) preserveAhead(ctx context.Context, in *inode, from, to int64) error {
	if to-from <= preserveStep || t.currentCut() == nil {
		return nil
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if more, err := t.preserveSome(in, from, to); !more || err != nil {
			return nil
		}
	}
}

// preserveSome is a step of preserveAhead. It reports whether there is another.
func (t *Tree) preserveSome(in *inode, from, to int64) (more bool, err error) {
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.row.has(flagBacking) || in.stale {
		return false, nil
	}
	if err := t.beginWriting(in); err != nil {
		return false, err
	}
	fr := in.frozen
	if fr == nil || !fr.shared || fr.file != in.file {
		return false, nil
	}
	missing := fr.have.Missing(from, min(to, fr.size))
	if len(missing) == 0 {
		return false, nil
	}
	first := missing[0]
	end := min(first.To, first.From+preserveStep)
	return true, t.preserve(in, first.From, end)
}

func (t *Tree) preserveRange(fr *frozen, r backing.Range) error {
	if fr.saved == nil {
		f, err := t.files.Scratch()
		if err != nil {
			return err
		}
		fr.saved = f
	}
	err := copyData(fr.saved, fr.file, r)
	fr.copied = t.countCopy(fr.saved, fr.copied)
	if err != nil {
		return err
	}
	fr.have.Add(r.From, r.To)
	return nil
}

// copyData copies a range to where it is in the other file; holes stay holes.
func copyData(dst, src disk.File, r backing.Range) error {
	for at := r.From; at < r.To; {
		from, to := dataFrom(src, at, r.To)
		if from, to = min(from, r.To), min(to, r.To); from < to {
			if _, err := io.Copy(io.NewOffsetWriter(dst, from), io.NewSectionReader(src, from, to-from)); err != nil {
				return err
			}
		}
		at = max(to, at+1)
	}
	return nil
}

// restore puts what was set aside in the place of what p has of the file as it
// is now.
func (fr *frozen) restore(p []byte, off int64) error {
	for _, r := range fr.have.Within(off, off+int64(len(p))) {
		if err := readFull(fr.saved, p[r.From-off:r.To-off], r.From); err != nil {
			return err
		}
	}
	return nil
}

// readFull fills p; what lies behind the end of the file is zeros.
func readFull(f disk.File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if err == io.EOF {
		clear(p[n:])
		return nil
	}
	return err
}

// froze notes that an inode's content is set aside until the cut ends; in.mu is held. It
// reports whether it may be: not if the cut is ending, for nobody would give it up again.
func (c *Cut) froze(in *inode) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return false
	}
	in.hold()
	c.frozen = append(c.frozen, in)
	return true
}

// unfreeze gives up what was set aside for a commit that has not settled the
// file, whether it had read it or not: what changed before the cut counts as
// changed since; in.mu is held.
func (c *Cut) unfreeze(in *inode) {
	if in.before != nil && !in.whole {
		for _, r := range in.before.dirty.Within(0, in.row.size) {
			for _, again := range in.dirty.Within(r.From, r.To) { // that it changed was counted twice
				c.t.written64.Add(again.From - again.To)
			}
		}
	}
	in.dirty, in.whole = in.unpublished()
	in.before = nil
	c.t.thaw(in)
}

// unpublished is what changed of a file since the newest commit that is
// published; in.mu is held.
func (in *inode) unpublished() (dirty backing.Ranges, whole bool) {
	if in.before == nil {
		return in.dirty, in.whole
	}
	dirty = in.dirty.Clone()
	dirty.Union(in.before.dirty)
	return dirty, in.whole || in.before.whole
}
