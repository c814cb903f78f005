package writeback

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"skep/cache/tree"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// work is one commit in the making: from the cut to the new root.
type work struct {
	e   *Engine
	cut *tree.Cut
	p   *packer

	lean bool // it takes no content: see commitLean
	same bool // it has the same files as the newest commit

	dirs  map[tree.Ino]*dirty // directories to be rebuilt
	links map[tree.Ino]link.Link
	anew  map[link.Link]bool // roots of directories that were made anew
	due   map[tree.Ino]bool  // files that could not be read before, to be tried again

	tinyOnce sync.Once
	tiny     map[tree.Ino]dag.Inode // see findTiny
	tinyErr  error

	zeroOnce sync.Once
	zero     link.Link
	zeroErr  error

	mu        sync.Mutex // guards all below
	done      settled
	keep      map[tree.Mark]bool
	moving    []tree.Ino
	restless  map[tree.Ino]bool // files that were written whenever they were read
	inMotion  []tree.Ino        // files that were taken all the same
	unread    []tree.Ino
	tried     map[tree.Ino]bool  // of those unread
	chunks    map[tree.Ino]int64 // see unreadFiles
	cause     error              // why the first of them is that was tried
	failures  int                // how many were
	leftOut   map[tree.Ino]bool  // files of which the commit can say no version
	kept      map[tree.Ino]int   // names that lead elsewhere now, and stay: see leftAs
	linksLeft bool               // of the table of links something stays, as it cannot be read
	needs     []link.Link        // content of those left out that an older commit has
	again     error              // why directories have to be made anew: see errAgain
}

// dirty is a directory to be rebuilt because of entries below it.
type dirty struct {
	ino    tree.Ino
	depth  int
	marked bool     // has marks of its own
	below  []string // names of subdirectories that are rebuilt
}

func newWork(ctx context.Context, e *Engine, cut *tree.Cut) *work {
	return &work{e: e, cut: cut, p: newPacker(ctx, e), dirs: map[tree.Ino]*dirty{},
		links: map[tree.Ino]link.Link{}, anew: map[link.Link]bool{}, due: e.unread.due(), tried: map[tree.Ino]bool{}, chunks: map[tree.Ino]int64{}, restless: map[tree.Ino]bool{}, keep: map[tree.Mark]bool{}, leftOut: map[tree.Ino]bool{}, kept: map[tree.Ino]int{}}
}

func (w *work) settled(s tree.Settled) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done.add(s)
}

func (w *work) noteMoving(ino tree.Ino) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.moving = append(w.moving, ino)
}

func (w *work) noteRestless(ino tree.Ino) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.restless[ino] = true
}

func (w *work) noteInMotion(ino tree.Ino) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inMotion = append(w.inMotion, ino)
}

func (w *work) noteUnread(ino tree.Ino, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !errors.Is(err, errRests) {
		w.tried[ino] = true
		w.failures++
	}
	if w.cause == nil || errors.Is(w.cause, errRests) {
		w.cause = err
	}
	w.unread = append(w.unread, ino)
}

func (w *work) noteChunk(ino tree.Ino, i int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chunks[ino] = i
}

func (w *work) leaveOut(ino tree.Ino) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leftOut[ino] = true
}

func (w *work) isLeftOut(ino tree.Ino) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leftOut[ino]
}

func (w *work) keepMark(m tree.Mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keep[m] = true
}

func (w *work) keepName(ino tree.Ino) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept[ino]++
}

// run stores everything that changed, and returns the record of the root
// directory and the table of linked inodes.
func (w *work) run(ctx context.Context, oldLinks link.Link) (root dag.Inode, links link.Link, err error) {
	hasLinks, err := w.collect()
	if err != nil {
		return root, links, err
	}
	links = oldLinks
	if hasLinks {
		if links, err = w.rebuildLinks(ctx, oldLinks); err != nil {
			return root, links, err
		}
	}
	order := make([]*dirty, 0, len(w.dirs))
	for _, d := range w.dirs {
		order = append(order, d)
	}
	// The deepest first; within a level by inode, so that files of one
	// directory lie together and a commit is the same when done again.
	slices.SortFunc(order, func(a, b *dirty) int {
		if a.depth != b.depth {
			return b.depth - a.depth
		}
		if a.ino < b.ino {
			return -1
		}
		return 1
	})
	for _, d := range order {
		if err := w.rebuildDir(ctx, d); err != nil {
			return root, links, err
		}
	}
	if w.again != nil {
		return root, links, w.again
	}
	if links, err = w.countKept(ctx, links); err != nil {
		return root, links, err
	}
	in, ok, err := w.cut.Inode(tree.Root)
	if err != nil || !ok {
		return root, links, errors.Join(err, errors.New("the root directory has no row"))
	}
	root = in.Record
	if l, ok := w.links[tree.Root]; ok {
		root.Content = l
	}
	return root, links, nil
}

// collect finds the directories with marks and those above them.
func (w *work) collect() (hasLinks bool, err error) {
	var marked []tree.Ino
	err = w.cut.Marks(func(m tree.Mark) error {
		switch {
		case m.Dir == tree.Links:
			hasLinks = true
		case m.Dir != 0 && (len(marked) == 0 || marked[len(marked)-1] != m.Dir):
			marked = append(marked, m.Dir)
		}
		return nil
	})
	for _, ino := range marked {
		if err == nil {
			err = w.add(ino)
		}
	}
	return hasLinks, err
}

// add enters a marked directory and the ones above it, unless it is gone.
func (w *work) add(ino tree.Ino) error {
	d, err := w.enter(ino)
	if d != nil {
		d.marked = true
	}
	return err
}

// enter returns the entry of a directory, made with those of all above it; nil
// if the directory was removed.
func (w *work) enter(ino tree.Ino) (*dirty, error) {
	if d, ok := w.dirs[ino]; ok {
		return d, nil
	}
	in, ok, err := w.cut.Inode(ino)
	if err != nil || !ok {
		return nil, err
	}
	d := &dirty{ino: ino}
	if ino != tree.Root {
		up, err := w.enter(in.Parent)
		if err != nil || up == nil {
			return nil, err
		}
		d.depth = up.depth + 1
		up.below = append(up.below, in.Name)
	}
	w.dirs[ino] = d
	return d, nil
}

func (w *work) rebuildDir(ctx context.Context, d *dirty) error {
	in, ok, err := w.cut.Inode(d.ino)
	if err != nil || !ok {
		return errors.Join(err, fmt.Errorf("directory %d has no row", d.ino))
	}
	l, err := w.rebuild(ctx, d.ino, in.Record.Content, d.below)
	if root := in.Record.Content; errors.Is(err, tree.ErrUnread) && in.Loaded() && !w.e.isAnew(root) {
		w.e.Anew(root)
		w.again = fmt.Errorf("%w: %w", errAgain, err)
		return nil // perhaps there are others
	}
	if err != nil {
		return err
	}
	w.links[d.ino] = l
	w.settled(tree.Settled{Ino: d.ino, Content: l})
	return nil
}

// editsAtOnce is how many changes of one directory are gathered in memory. They
// are in the order of their names, as they will be read; where there are more,
// in one that rewrites few nodes for each part.
const editsAtOnce = 16 << 10

// attributesAtOnce is how many bytes of extended attributes are gathered with them.
const attributesAtOnce = 16 << 20

// errAgain says that another commit is to follow at once: as nodes of directories
// cannot be read of which all entries are here, it makes these anew from them.
var errAgain = errors.New("not all could be taken")

// rebuild makes the new version of a directory from the old one, its marks and
// the subdirectories below that were rebuilt; from all of its entries, if the old
// one is among those that cannot be read.
func (w *work) rebuild(ctx context.Context, dir tree.Ino, old link.Link, below []string) (link.Link, error) {
	names := slices.Clone(below)
	add := func(name string) { names = append(names, name) }
	err := w.cut.MarksOf(dir, add)
	if err == nil && w.e.isAnew(old) {
		w.anew[old] = true
		old, err = link.Link{}, w.cut.Names(dir, add)
	}
	if err != nil {
		return link.Link{}, err
	}
	return w.edit(ctx, dir, old, names)
}

// edit makes the new version of a directory from the old one and the names that may
// have changed.
func (w *work) edit(ctx context.Context, dir tree.Ino, old link.Link, names []string) (link.Link, error) {
	slices.Sort(names)
	names = slices.Compact(names)
	arranged := len(names) > editsAtOnce
	if arranged {
		dag.Arrange(w.e.cfg.Names, names)
	}
	for len(names) > 0 {
		changes, n, err := w.changes(ctx, dir, names[:min(len(names), editsAtOnce)])
		if err != nil {
			return link.Link{}, err
		}
		if old, err = dag.EditDir(ctx, w.p, w.e.cfg.Names, old, changes); err != nil {
			return link.Link{}, fmt.Errorf("directory %s: %w", w.e.cfg.Tree.Path(dir), err)
		}
		if names = names[n:]; !arranged {
			dag.Arrange(w.e.cfg.Names, names)
			arranged = true
		}
	}
	return old, nil
}

// changes works out what became of some names of a directory, storing the
// content of dirty files on the way, several at a time. It returns of how many: no more
// than their attributes allow.
func (w *work) changes(ctx context.Context, dir tree.Ino, names []string) (out []dag.Change, n int, err error) {
	found := make([]*dag.Change, len(names)) // nil: nothing of it is committed
	attributes := 0
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(w.e.parallel)
	for ; n < len(names) && attributes < attributesAtOnce; n++ {
		if err := w.p.failed(gctx); err != nil {
			break
		}
		in, special, err := w.lookup(dir, names[n])
		if err != nil {
			return nil, 0, errors.Join(err, g.Wait())
		}
		at, into := tree.Mark{Dir: dir, Name: names[n]}, &found[n]
		if in != nil {
			attributes += attributesOf(in)
		}
		if in == nil || !in.Dirty {
			if *into, err = w.cleanChange(gctx, at, in, special); err != nil {
				return nil, 0, errors.Join(err, g.Wait())
			}
			continue
		}
		g.Go(func() (err error) {
			*into, err = w.fileChange(gctx, at, *in)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, 0, err
	}
	if err := w.p.failed(ctx); err != nil {
		return nil, 0, err
	}
	out = make([]dag.Change, 0, n)
	for _, c := range found {
		if c != nil {
			out = append(out, *c)
		}
	}
	return out, n, nil
}

func attributesOf(in *tree.Inode) (n int) {
	for _, value := range in.Record.Xattrs {
		n += len(value)
	}
	return n
}

// cleanChange is the change of a name whose content is committed, or that has
// none, or nothing any more.
func (w *work) cleanChange(ctx context.Context, at tree.Mark, in *tree.Inode, special *dag.Inode) (*dag.Change, error) {
	if in != nil {
		rec := w.withLink(in.Record)
		return &dag.Change{Name: at.Name, Record: &rec}, nil
	}
	if special != nil && w.isLeftOut(tree.Ino(special.ID)) {
		// The table of links may have nothing of it, unless an older commit has the name.
		marked, err := w.cut.IsMarked(at)
		if err != nil {
			return nil, err
		}
		if marked {
			w.keepMark(at)
			return w.leftAs(ctx, at, special.ID)
		}
	}
	return &dag.Change{Name: at.Name, Record: special}, nil
}

// fileChange stores the content of a file that changed.
func (w *work) fileChange(ctx context.Context, at tree.Mark, in tree.Inode) (*dag.Change, error) {
	rec, keep, skipped, err := w.fileRecord(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w.e.cfg.Tree.Path(tree.Ino(in.Record.ID)), err)
	}
	if keep {
		w.keepMark(at)
	}
	if skipped {
		return w.leftAs(ctx, at, in.Record.ID)
	}
	return &dag.Change{Name: at.Name, Record: &rec}, nil
}

// leftAs is the change of a name that leads to an inode of which the commit has no
// version: what the commit before has there stays, unless that has another name now, and
// would have two, or had several, and is gone from the table of links, or is a directory,
// and what is left of it was moved out.
func (w *work) leftAs(ctx context.Context, at tree.Mark, ino uint64) (*dag.Change, error) {
	if at.Dir == tree.Links {
		return nil, nil
	}
	old, there, err := w.before(ctx, at)
	if err != nil || !there || old.ID == ino {
		return nil, err
	}
	_, elsewhere, err := w.cut.Inode(tree.Ino(old.ID))
	if err != nil {
		return nil, err
	}
	if elsewhere != old.Linked || old.Mode&dag.ModeType == dag.ModeDirectory {
		return &dag.Change{Name: at.Name}, nil
	}
	if old.Linked {
		w.keepName(tree.Ino(old.ID))
	}
	return nil, nil
}

// withLink gives a rebuilt directory's record its new root.
func (w *work) withLink(rec dag.Inode) dag.Inode {
	if l, ok := w.links[tree.Ino(rec.ID)]; ok {
		rec.Content = l
	}
	return rec
}

// lookup returns the inode whose record belongs under a name; or, instead, the
// record itself where the inode's is elsewhere; or neither, if the name is gone.
func (w *work) lookup(dir tree.Ino, name string) (*tree.Inode, *dag.Inode, error) {
	var ino tree.Ino
	if dir == tree.Links {
		if _, err := fmt.Sscanf(name, "%016x", (*uint64)(&ino)); err != nil {
			return nil, nil, fmt.Errorf("mark %q of the table of links: %w", name, err)
		}
	} else {
		var ok bool
		var err error
		if ino, ok, err = w.cut.Entry(dir, name); err != nil || !ok {
			return nil, nil, err
		}
	}
	in, ok, err := w.cut.Inode(ino)
	if err != nil || !ok {
		return nil, nil, err
	}
	if dir != tree.Links && in.Multi {
		return nil, &dag.Inode{ID: uint64(ino), Mode: in.Record.Mode & dag.ModeType, Linked: true}, nil
	}
	return &in, nil, nil
}
