package writeback

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"skep/cache/tree"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// rebuildLinks makes the new version of the table of linked inodes. Nobody has all of
// its entries here, so that it cannot be made anew: where nodes of the old one cannot
// be read, what they may have stays as it was, and so do the names that lead there.
// All else is taken.
func (w *work) rebuildLinks(ctx context.Context, old link.Link) (link.Link, error) {
	var names []string
	err := w.cut.MarksOf(tree.Links, func(name string) { names = append(names, name) })
	partly := w.e.isAnew(old)
	if err == nil && partly {
		names, err = w.reachable(ctx, old, names)
	}
	if err != nil {
		return old, err
	}
	l, err := w.edit(ctx, tree.Links, old, names)
	if errors.Is(err, tree.ErrUnread) && !partly {
		w.e.Anew(old)
		return old, fmt.Errorf("%w: %w", errAgain, err)
	}
	if l != old {
		w.anew[old] = true
	}
	return l, err
}

// reachable returns those names in the table of linked inodes of which the nodes can
// be read that a change needs. The others are left for another commit. To try one may
// take as long as a read that nobody answers: few are tried in vain, those last that
// were so lately.
func (w *work) reachable(ctx context.Context, table link.Link, names []string) ([]string, error) {
	tried := w.e.unread.tried
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(tried[inodeOf(a)].Compare(tried[inodeOf(b)]), cmp.Compare(a, b))
	})
	var out []string
	for _, name := range names {
		err := error(errRests)
		if w.mayFail() {
			err = dag.ReachEntry(ctx, w.p, w.e.cfg.Names, table, name)
		}
		switch {
		case err == nil:
			out = append(out, name)
		case errors.Is(err, tree.ErrUnread):
			if err := w.leaveLink(name, err); err != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
	return out, nil
}

// mayFail reports whether something more may be read in vain.
func (w *work) mayFail() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failures < mostUnread
}

// leaveLink leaves a linked inode as the commit before has it. That had it under a name
// of its own, perhaps, which this commit has no more: what it has is kept all the same.
func (w *work) leaveLink(name string, why error) error {
	ino := inodeOf(name)
	w.linksLeft = true
	w.keepMark(tree.Mark{Dir: tree.Links, Name: name})
	in, there, err := w.cut.Inode(ino)
	if there {
		w.leaveOut(ino)
		w.noteUnread(ino, why)
	}
	if there && !in.Record.Content.IsZero() {
		w.needs = append(w.needs, in.Record.Content)
	}
	return err // of one that was deleted, nobody needs the entry
}

// keptAtOnce is how many records of the table are changed at once for names that stay.
const keptAtOnce = 256

// countKept has the table of linked inodes count the names that stay though they lead
// elsewhere now: who takes over the drive removes the inode with the last name that it
// counts. The next commit says anew how many there are.
func (w *work) countKept(ctx context.Context, table link.Link) (link.Link, error) {
	var names []string
	for ino := range w.kept {
		if !w.isLeftOut(ino) { // else all stands as it was
			names = append(names, dag.InodeName(uint64(ino)))
		}
	}
	slices.Sort(names)
	dag.Arrange(w.e.cfg.Names, names)
	for some := range slices.Chunk(names, keptAtOnce) {
		var changes []dag.Change
		for _, name := range some {
			rec, there, err := dag.LookupDir(ctx, w.p, w.e.cfg.Names, table, name)
			if err != nil {
				return table, err
			}
			if !there {
				continue // nor was it before
			}
			rec.Nlink += uint32(w.kept[inodeOf(name)])
			changes = append(changes, dag.Change{Name: name, Record: &rec})
			w.keepMark(tree.Mark{Dir: tree.Links, Name: name})
		}
		var err error
		if table, err = dag.EditDir(ctx, w.p, w.e.cfg.Names, table, changes); err != nil {
			return table, err
		}
	}
	return table, nil
}

// inodeOf is the inode of a name in the table of linked inodes.
func inodeOf(name string) (ino tree.Ino) {
	_, _ = fmt.Sscanf(name, "%016x", (*uint64)(&ino))
	return ino
}
