package tree

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"skep/cache/state"
)

// Cut is the tree as of one instant, for a commit to take. There is one at a
// time. What the commit has taken it tells by Settle; Close ends the cut.
type Cut struct {
	t     *Tree
	epoch uint64 // marks of this epoch and before are the commit's
	view  *state.View
	last  uint64 // the number of the newest backing file that the commit can want to read

	written int64 // what had been written at the instant of the cut, as Tree.written64

	cleared int // marks, by ClearMarks

	mu     sync.Mutex // guards all below
	ending bool       // nothing more is set aside
	taken  inoSet
	frozen []*inode            // each with a reference
	passed map[Ino]bool        // files that the kernel was writing alone at the cut
	joined map[Ino]unix.Stat_t // what those of them were like that are written in place
}

// Format hides keys, and what leads to them, from every formatting verb.
func (*Cut) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "tree.Cut(…)") }

// ErrBusy says that a cut is under way already.
var ErrBusy = errors.New("a commit is under way")

func (t *Tree) currentCut() *Cut {
	t.cutMu.Lock()
	defer t.cutMu.Unlock()
	return t.cutting
}

// Cut fixes the tree as it is now.
func (t *Tree) Cut() (*Cut, error) {
	c := &Cut{t: t, taken: inoSet{}, passed: map[Ino]bool{}, joined: map[Ino]unix.Stat_t{}}
	t.st.PrepareCut()
	sc, err := c.begin()
	if errors.Is(err, ErrBusy) {
		return nil, err
	}
	if err == nil {
		c.view, err = sc.View()
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("take what is to be committed: %w", err)
	}
	return c, nil
}

// begin is the instant of the cut. Nobody can change anything while it lasts, so
// that it must not depend on how much there is.
func (c *Cut) begin() (*state.Cut, error) {
	t := c.t
	t.gate.Lock()
	defer t.gate.Unlock()
	t.cutMu.Lock()
	if t.cutting != nil {
		t.cutMu.Unlock()
		return nil, ErrBusy
	}
	c.last = t.files.Last()
	t.cutting = c
	t.cutMu.Unlock()
	c.epoch, c.written = t.epoch.Load(), t.written64.Load()
	if err := c.flushSoft(); err != nil {
		return nil, err
	}
	t.epoch.Store(c.epoch + 1)
	return t.st.BeginCut(), nil
}

// flushSoft writes what only memory knows into the tables, and then the new epoch; the
// gate is held exclusively. Only of files that are open for writing there is such a
// thing that a commit needs. If it ends between two batches, they are as if they had been
// closed before the cut.
func (c *Cut) flushSoft() error {
	t, all := c.t, c.t.inodes.writers()
	defer func() {
		for _, in := range all {
			t.release(in)
		}
	}()
	var rows softRows
	for _, in := range all {
		in.mu.Lock()
		c.notePassed(in)
		if in.soft && !in.orphan {
			if in.seq < t.kept.Load() {
				t.unfinished.Store(0) // its row comes alone: no journal may begin before it
			}
			rows.add(in, c.epoch)
		} else if in.writers == 0 {
			t.inodes.noWriter(in) // the tables were told since
		}
		in.mu.Unlock()
		if rows.b.Size() < loadBytes {
			continue
		}
		if err := rows.apply(t); err != nil {
			return err
		}
	}
	rows.b.Put(singleKey("epoch"), uint64Value(c.epoch+1))
	t.saveUsage(&rows.b)
	return rows.apply(t)
}

// softRows are rows that memory alone knows, on their way into the tables.
type softRows struct {
	b     state.Batch
	rows  []softRow
	grown tally
}

type softRow struct {
	in      *inode
	counted tally
}

// add adds the row of an inode, and the mark of its entry; in.mu is held.
func (s *softRows) add(in *inode, epoch uint64) {
	row := softRow{in, in.row.tally()}
	s.b.Put(key(tableInode, in.ino), in.row.encode())
	s.b.Put(in.entryMark(), uint64Value(epoch))                                 // there mostly, unless it could not be written
	if (in.writers == 0 || in.untold) && in.ranged && in.row.has(flagBacking) { // the tables could not be told
		if in.row.has(flagPartial) || !in.whole {
			s.b.Put(key(tableRanges, in.ino), in.encodeChanged())
		} else {
			s.b.Delete(key(tableRanges, in.ino)) // all may have changed
		}
	}
	s.grown = s.grown.plus(row.counted).minus(in.counted)
	s.rows = append(s.rows, row)
}

// apply writes what was added, and begins anew; the gate is held exclusively.
func (s *softRows) apply(t *Tree) error {
	s.b.Freeing()
	seq, err := t.count.apply(t.st, &s.b, 0, s.grown)
	if err != nil {
		return err
	}
	for _, r := range s.rows {
		r.in.mu.Lock()
		r.in.soft, r.in.seq, r.in.counted = false, max(r.in.seq, seq), r.counted
		if r.in.writers == 0 { // the tables could not be told before
			t.inodes.noWriter(r.in)
		}
		r.in.mu.Unlock()
	}
	s.b.Reset()
	s.rows, s.grown = s.rows[:0], tally{}
	return nil
}

// Epoch is the number of the epoch that the cut ended.
func (c *Cut) Epoch() uint64 { return c.epoch }

// Seq is the number of the last batch that the cut contains.
func (c *Cut) Seq() uint64 { return c.view.Seq }

// Reader gives the tables as of the cut, for those who keep tables of their
// own beside the tree's.
func (c *Cut) Reader() state.Reader { return c.view }

func (c *Cut) hasTaken(ino Ino) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taken.has(ino)
}

// Close ends the cut: the view is released, and what was set aside for it.
func (c *Cut) Close() {
	if c.view != nil {
		c.view.Release()
		c.view = nil
	}
	if c.cleared >= clearMany { // now that nobody sees the marks any more
		c.cleared = 0
		log := c.t.log
		c.t.st.Compact(tableMark, func(err error) {
			if err != nil {
				log.Info("looking for changes takes longer for some time", "err", err)
			}
		})
	}
	c.mu.Lock()
	frozen := c.frozen
	c.frozen, c.ending = nil, true
	c.mu.Unlock()
	for _, in := range frozen {
		in.mu.Lock()
		c.unfreeze(in)
		in.mu.Unlock()
		c.t.release(in)
	}
	c.t.cutMu.Lock()
	if c.t.cutting == c { // until now, or the next cut would find what this one set aside
		c.t.cutting = nil
	}
	c.t.cutMu.Unlock()
}
