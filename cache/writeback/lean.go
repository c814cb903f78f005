package writeback

import (
	"context"
	"errors"
	"fmt"

	"skep/cache/tree"
	"skep/chunker/blockindex"
	"skep/chunker/dag"
	"skep/chunker/group"
)

// errNoRoom says that a file's content was not tried, as there is no room for it.
var errNoRoom = errors.New("there is no room for content")

// commitLean publishes what takes no room for content, after a commit that found none:
// names that are gone above all, whose content holders can then let go of. Else what was
// deleted would make no room as long as what was made meanwhile does not fit, and what was
// lost and went out again would be found by nobody else. Files with new content stay as
// the commit before has them, and are taken by the next one.
func (e *Engine) commitLean(ctx context.Context) error {
	defer e.buffers.drain()
	cut, err := e.cfg.Tree.Cut()
	if err != nil {
		return err
	}
	defer cut.Close()
	w := newWork(ctx, e, cut)
	w.lean = true
	untold, err := e.isUntold()
	if err != nil {
		return err
	}
	if !untold && e.lostBelow.IsZero() {
		e.telling = striving{}
	}
	worth := untold && e.telling.may(e.now())
	if !worth {
		worth, err = w.isWorth(ctx)
	}
	if err == nil && !worth && !e.isSettled {
		var idle map[group.ID]group.Bitmap
		idle, err = e.table.Idle()
		worth = len(idle) > 0 // else it waits for the next commit
	}
	if err != nil {
		return err
	}
	if !worth {
		return e.giveBackLate(ctx)
	}
	if err := e.make(ctx, w); err != nil {
		return fmt.Errorf("publish what needs no room: %w", err)
	}
	if untold {
		e.telling.failed(e.now()) // unless the next look finds that it helped
	}
	if w.linksLeft {
		e.unlinking.failed(e.now())
	} else {
		e.unlinking = striving{}
	}
	seq := cut.Seq()
	cut.Close()
	return e.afterwards(ctx, seq, w.needs)
}

// isUntold reports whether nobody can begin with the newest commit, or it says of what is
// needed that it is in packs that are lost, or only here, and that was stored again.
func (e *Engine) isUntold() (bool, error) {
	if lost, err := e.isCommitLost(); err != nil || lost {
		return lost, err
	}
	var alone map[group.ID]group.Bitmap
	if e.cfg.OnlyHere != nil {
		alone = e.cfg.OnlyHere()
	}
	return e.table.Untold(func(p blockindex.Place) bool {
		packs := alone[p.Group]
		return packs.Has(p.Number) || e.isLost(packID{p.Group, p.Number})
	})
}

// giveBackLate gives back what had to wait after the newest commit, until it was known
// that no other device needs it.
func (e *Engine) giveBackLate(ctx context.Context) error {
	if counted, err := e.table.Counted(); err != nil || !counted || !e.isSettled {
		return err
	}
	return e.buryDead(ctx, true)
}

// isWorth reports whether room comes free by what a lean commit takes. It costs what the
// commit before it has stored, so that nothing less is a reason.
func (w *work) isWorth(ctx context.Context) (bool, error) {
	err := w.cut.Marks(func(m tree.Mark) error {
		if m.Dir == 0 {
			return nil
		}
		frees, err := w.frees(ctx, m)
		if err == nil && frees {
			err = errStop
		}
		return err
	})
	if errors.Is(err, errStop) {
		return true, nil
	}
	return false, err
}

// frees reports whether the commit before has content under a name that is gone, or is
// little now; or may have, as its folder cannot be read and is made anew by the next commit.
func (w *work) frees(ctx context.Context, m tree.Mark) (bool, error) {
	if m.Dir == tree.Links && !w.e.unlinking.may(w.e.now()) {
		return false, nil // it was tried, and kept perhaps
	}
	in, special, err := w.lookup(m.Dir, m.Name)
	switch {
	case err != nil || special != nil:
		return false, err
	case in != nil:
		return in.Dirty && !w.needsRoom(*in) && in.Committed() && in.CommittedSize() > dag.MaxInline, nil
	case m.Dir == tree.Links:
		return true, nil
	}
	dir, ok, err := w.cut.Inode(m.Dir)
	if err != nil || ok && w.e.isAnew(dir.Record.Content) {
		return err == nil, err
	}
	_, there, err := w.before(ctx, m)
	return there, err
}

// before is what the commit before has under a name, if that can be read.
func (w *work) before(ctx context.Context, m tree.Mark) (rec dag.Inode, there bool, err error) {
	dir, ok, err := w.cut.Inode(m.Dir)
	if root := dir.Record.Content; err != nil || !ok || root.IsZero() || w.e.isAnew(root) {
		return rec, false, err
	}
	return dag.LookupDir(ctx, w.p, w.e.cfg.Names, dir.Record.Content, m.Name)
}

// needsRoom reports whether a file has content of its own that is in no commit: however
// little, where it is not tiny; see tree.CutFile.
func (w *work) needsRoom(in tree.Inode) bool {
	return in.Dirty && (in.Record.Size > dag.MaxInline || in.Partial() || w.cut.IsPassed(tree.Ino(in.Record.ID)))
}
