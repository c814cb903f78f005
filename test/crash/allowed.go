package crash

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"

	"skep/test/model"
)

// History is what a sequence of operations did, and what was promised of it. A
// moment is a number of operations that were acknowledged.
type History struct {
	states []model.Listing     // after so many operations
	gone   []map[uint64][]byte // what is in open files that have no name
	notes  []note
	failed bool // an operation failed, and may be done in part
}

// note is what an operation promised.
type note struct {
	names   bool                // all names and attributes so far are safe
	flushed uint64              // this file or directory is safe: content, names, and what is said of it
	moved   uint64              // this file replaced another
	all     bool                // all contents so far are safe
	changed map[uint64]struct{} // files and directories of which something changed, contents written apart
}

// NewHistory begins with a tree that is wholly safe.
func NewHistory(begin model.Listing) *History {
	return &History{states: []model.Listing{begin}, gone: []map[uint64][]byte{nil}, notes: []note{{names: true, all: true}}}
}

// Add takes down an operation that was acknowledged, the file that it was about,
// and the tree after it.
func (h *History) Add(op model.Op, r model.Result, file uint64, m *model.Tree) {
	before, after := h.states[len(h.states)-1], m.Listing()
	n := note{changed: map[uint64]struct{}{}}
	if r.Errno == 0 {
		switch op.Kind {
		case model.Sync:
			n.names, n.all = true, true
		case model.SyncDir, model.Fsync, model.Fdatasync, model.FsyncOpen:
			n.flushed = file
		case model.Write, model.WriteTo:
			if op.Flags&os.O_SYNC == os.O_SYNC {
				n.flushed = file
			}
		case model.Rename:
			// A name of the same file is replaced by nothing.
			from, to := before[op.Path], before[op.To]
			if to.File != 0 && from.IsFile() && from.File != to.File {
				n.moved = from.File
			}
		}
	}
	for path, e := range after {
		if b, there := before[path]; !there || b.File != e.File || b.DifferApart(e) != nil {
			n.changed[e.File] = struct{}{}
		}
	}
	changedNames(before, after, n.changed)
	changedNames(after, before, n.changed)
	h.states, h.gone, h.notes = append(h.states, after), append(h.gone, m.Nameless()), append(h.notes, n)
}

// changedNames adds the directories in which a name of one listing is not as in
// the other.
func changedNames(a, b model.Listing, out map[uint64]struct{}) {
	for path, e := range a {
		if o, there := b[path]; path != "" && (!there || o.File != e.File) {
			dir, _ := model.Split(path)
			out[a[dir].File] = struct{}{}
		}
	}
}

// AfterKill says whether a tree may be found when the process ended after k
// operations were acknowledged, while the next was under way: nil if so.
func (h *History) AfterKill(got model.Listing, k int) error {
	return h.killed(got, k, k, h.next(k))
}

// next is the last moment that may be seen while the operation after k is under way.
func (h *History) next(k int) int { return min(k+1, len(h.states)-1) }

// killed is AfterKill while all operations after k up to last were under way, and some
// after from, of which one up to k showed that they had an effect: contents may be
// changed in part.
func (h *History) killed(got model.Listing, from, k, last int) error {
	err := model.Differ(got, h.states[k])
	for i := max(k, from+1); i <= last && err != nil; i++ {
		if model.Differ(got, h.states[i]) == nil || h.names(got, i) == nil && h.contents(got, i, func(uint64) int { return from }, last) == nil {
			return nil
		}
	}
	return err
}

// AfterPowerLoss says whether a tree may be found when the power went after k
// operations were acknowledged: names and attributes are as they were at one
// moment since the last that was promised; and each byte of a file, and its
// size, is one that it had since it was flushed.
func (h *History) AfterPowerLoss(got model.Listing, k int) error {
	_, err := h.Moment(got, k)
	return err
}

// Moment is the one that names and attributes are of in a tree that may be found
// when the power went after k operations were acknowledged.
func (h *History) Moment(got model.Listing, k int) (int, error) {
	return h.moment(got, k, k, h.next(k))
}

// moment is Moment while all operations after k up to last were under way, and some
// after from, as in killed.
func (h *History) moment(got model.Listing, from, k, last int) (int, error) {
	var errs []error
	for i := last; i >= h.safeNames(k); i-- {
		err := h.names(got, i)
		if err == nil {
			err = h.contents(got, i, func(file uint64) int {
				safe := h.safeContent(file, k, i)
				if from < k {
					safe = min(safe, from)
				}
				return safe
			}, last)
		}
		if err == nil {
			return i, nil
		}
		errs = append(errs, fmt.Errorf("as of operation %d: %w", i, err))
	}
	return 0, errors.Join(errs...)
}

// AfterFault says whether a tree may be found by a process that began after all
// operations, some of which failed, or flushes did: the content of a file may be
// as it was at any moment since it was safe last.
func (h *History) AfterFault(got model.Listing) error {
	last := len(h.states) - 1
	if err := h.names(got, last); err != nil {
		return err
	}
	return h.contents(got, last, func(file uint64) int { return h.safeContent(file, last, last) }, last)
}

// safeNames is the last moment whose names and attributes were promised to
// survive, when k operations were acknowledged.
func (h *History) safeNames(k int) int {
	safe := 0
	for j := 0; j <= k; j++ {
		if h.notes[j].names {
			safe = max(safe, j)
		}
		if f := h.notes[j].flushed; f != 0 {
			safe = max(safe, h.lastChange(f, j))
		}
	}
	return safe
}

func (h *History) lastChange(file uint64, upTo int) int {
	for j := upTo; j > 0; j-- {
		if _, changed := h.notes[j].changed[file]; changed {
			return j
		}
	}
	return 0
}

// safeContent is the last moment whose content of a file was promised to
// survive, if names are as of moment i.
func (h *History) safeContent(file uint64, k, i int) int {
	safe := 0
	for j := 0; j <= k; j++ {
		n := h.notes[j]
		if n.flushed == file || n.moved == file && j <= i || n.all {
			safe = j
		}
	}
	for j := k + 1; j <= i; j++ {
		if h.notes[j].moved == file { // under way, but there
			safe = j
		}
	}
	return safe
}

func find(l model.Listing, file uint64) (model.Entry, bool) {
	for _, e := range l {
		if e.File == file {
			return e, true
		}
	}
	return model.Entry{}, false
}

// names compares all but what is in files with moment i.
func (h *History) names(got model.Listing, i int) error {
	bare := func(l model.Listing) model.Listing {
		out := model.Listing{}
		for path, e := range l {
			e.Content, e.Mtime = nil, 0
			if e.IsFile() {
				e.Size = 0
			}
			out[path] = e
		}
		return out
	}
	return model.Differ(bare(got), bare(h.states[i]))
}

// contents says whether each byte of each file was there at some moment since
// the one that since tells, up to last.
func (h *History) contents(got model.Listing, i int, since func(file uint64) int, last int) error {
	for path, e := range h.states[i] {
		if !e.IsFile() {
			continue
		}
		from := since(e.File)
		var versions [][]byte
		for j := from; j <= last; j++ {
			if v, there := find(h.states[j], e.File); there {
				versions = append(versions, v.Content)
			} else if v, open := h.gone[j][e.File]; open {
				versions = append(versions, v)
			} else if j < i {
				versions = append(versions, nil) // not made yet
			}
		}
		if err := among(got[path].Content, versions); err != nil {
			return fmt.Errorf("%q, safe since operation %d: %w", path, from, err)
		}
	}
	return nil
}

// among says whether each byte of b, and its length, is from one of versions. There
// is none of a file that had no name any more when it was flushed.
func among(b []byte, versions [][]byte) error {
	if len(versions) == 0 {
		return nil
	}
	least, most := len(versions[0]), 0
	for _, v := range versions {
		least, most = min(least, len(v)), max(most, len(v))
	}
	if len(b) < least || len(b) > most {
		return fmt.Errorf("%d bytes, want %d to %d", len(b), least, most)
	}
	if slices.ContainsFunc(versions, func(v []byte) bool { return bytes.Equal(v, b) }) {
		return nil
	}
	for x, got := range b {
		if !possible(versions, x, got) {
			return fmt.Errorf("byte %d of %d is %#x, which was never there", x, len(b), got)
		}
	}
	return nil
}

func possible(versions [][]byte, x int, b byte) bool {
	for _, v := range versions {
		if x < len(v) && v[x] == b || x >= len(v) && b == 0 {
			return true
		}
	}
	return false
}
