package writeback

import (
	"context"
	"errors"
	"fmt"

	"skep/cache/tree"
	"skep/chunker/dag"
)

// errNoRoom says that a file's content was not tried, as there is no room for it.
var errNoRoom = errors.New("there is no room for content")

// commitLean publishes what takes no room for content, after a commit that found none:
// names that are gone above all, whose content holders can then let go of. Else what was
// deleted would make no room as long as what was made meanwhile does not fit. Files with
// new content stay as the commit before has them, and are taken by the next one.
func (e *Engine) commitLean(ctx context.Context) error {
	defer e.buffers.drain()
	cut, err := e.cfg.Tree.Cut()
	if err != nil {
		return err
	}
	defer cut.Close()
	w := newWork(ctx, e, cut)
	w.lean = true
	worth, err := w.isWorth()
	if err != nil {
		return err
	}
	if !worth {
		return e.giveBackLate(ctx)
	}
	if err := e.make(ctx, w); err != nil {
		return fmt.Errorf("publish what needs no room: %w", err)
	}
	return e.afterwards(ctx, cut.Seq(), w.needs)
}

// giveBackLate gives back what had to wait after the newest commit, until it was known
// that no other device needs it.
func (e *Engine) giveBackLate(ctx context.Context) error {
	if counted, err := e.table.Counted(); err != nil || !counted || !e.isSettled {
		return err
	}
	return e.buryDead(ctx, true)
}

// isWorth reports whether something changed that a lean commit takes. After one, that is
// false until something else changes.
func (w *work) isWorth() (bool, error) {
	err := w.cut.Marks(func(m tree.Mark) error {
		if m.Dir == 0 {
			return nil
		}
		takes, err := w.takesLean(m)
		if err == nil && takes {
			err = errStop
		}
		return err
	})
	if errors.Is(err, errStop) {
		return true, nil
	}
	return false, err
}

// takesLean reports whether a lean commit takes what became of a name.
func (w *work) takesLean(m tree.Mark) (bool, error) {
	in, special, err := w.lookup(m.Dir, m.Name)
	if err == nil && special != nil {
		var linked tree.Inode
		linked, _, err = w.cut.Inode(tree.Ino(special.ID))
		in = &linked
	}
	return in == nil || !needsRoom(*in), err
}

// needsRoom reports whether a file has content of its own that is in no commit.
func needsRoom(in tree.Inode) bool { return in.Dirty && in.Record.Size > dag.MaxInline }
