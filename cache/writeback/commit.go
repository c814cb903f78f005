package writeback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"skep/cache/tree"
	"skep/chunker/blockindex"
	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
)

// commit takes what changed and publishes it. Nothing changed is no commit.
func (e *Engine) commit(ctx context.Context) (err error) {
	e.begin()
	defer func() { e.end(err) }()
	for err = e.commitOnce(ctx); errors.Is(err, errAgain); err = e.commitOnce(ctx) {
		e.cfg.Log.Info("another commit begins", "err", err) // each time for other directories, or files
	}
	if errors.Is(err, ErrNoRoom) {
		if lerr := e.commitLean(ctx); lerr != nil {
			e.cfg.Log.Info("what was deleted makes no room yet", "err", lerr)
		}
	}
	return err
}

func (e *Engine) commitOnce(ctx context.Context) error {
	defer e.buffers.drain()

	if err := e.publishIntended(ctx, 0); err != nil {
		return err
	}
	cut, err := e.cfg.Tree.Cut()
	if err != nil {
		return err
	}
	defer cut.Close()
	needed, err := e.isNeeded(cut)
	if err != nil {
		return err
	}
	if needed, err = e.foldFirst(ctx, cut, needed); err != nil {
		return fmt.Errorf("move blocks out of mostly dead packs: %w", err)
	}
	seq := cut.Seq()
	if !needed { // giving back may be unfinished
		cut.Close()
		return e.afterwards(ctx, seq, nil)
	}
	w := newWork(ctx, e, cut)
	err = e.make(ctx, w)
	more := e.noteTried(w, err == nil)
	e.restless = w.restless
	if err != nil {
		return err
	}
	e.noteInMotion(w)
	e.tookNothing = w.same
	cut.Close() // it keeps content here, and what follows may wait for holders
	if err := e.afterwards(ctx, seq, w.needs); err != nil {
		e.cfg.Log.Warn("reclaiming space was put off", "err", err)
	}
	if more {
		return errMore
	}
	return w.partly()
}

// isNeeded reports whether there is something to commit.
func (e *Engine) isNeeded(cut *tree.Cut) (bool, error) {
	if old, _ := e.reader.Commit(); old == nil {
		return true, nil
	}
	if lost, err := e.isCommitLost(); err != nil || lost {
		return lost, err
	}
	if moved, err := e.table.Moved(); err != nil || moved != 0 {
		return true, err
	}
	return hasMarks(cut)
}

// isCommitLost reports whether the newest commit itself, its group table or its index is
// in a lost pack: nobody can begin with it. The next one says all that anew, but for the
// index as long as references are not counted: what of that is lost stands until then. Of
// pieces that only lists name, it knows what lookBelowLists found.
func (e *Engine) isCommitLost() (bool, error) {
	c, at := e.reader.Commit()
	if c == nil {
		return false, nil
	}
	lost := func(l commit.Locator) bool { l = l.In(at); return e.isLost(packID{l.Group, l.Number}) }
	if lost(at) || slices.ContainsFunc(c.Groups, lost) {
		return true, nil
	}
	counted, err := e.table.Counted()
	return counted && (e.lostBelow == at.Link || slices.ContainsFunc(c.Segments, func(s commit.Segment) bool {
		return slices.ContainsFunc(s.Pieces, func(p commit.Piece) bool { return lost(p.At) })
	})), err
}

// listTime is how long lists of pieces are waited for that are neither in memory nor here.
const listTime = 10 * time.Second

// lookBelowLists looks whether the newest commit has an index of which a piece is in a
// lost pack that only a list names. Where lists cannot be read it is not known, and they
// are tried less and less often.
func (e *Engine) lookBelowLists(ctx context.Context) error {
	c, at := e.reader.Commit()
	counted, err := e.table.Counted()
	if err != nil || !counted || c == nil || !e.listing.may(e.now()) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	for _, s := range c.Segments {
		if !s.Lists {
			continue
		}
		pieces, err := e.reader.Pieces(ctx, s, at)
		if err != nil {
			e.listing.failed(e.now())
			return err
		}
		if slices.ContainsFunc(pieces, func(p commit.Piece) bool { return e.isLost(packID{p.At.Group, p.At.Number}) }) {
			e.lostBelow = at.Link
			return nil
		}
	}
	e.listing, e.lostBelow = striving{}, link.Link{}
	return nil
}

// make stores and publishes a new commit, unless the newest one says the same; when it
// returns, what the commit took is clean.
func (e *Engine) make(ctx context.Context, w *work) error {
	old, oldAt := e.reader.Commit()
	next, err := w.build(ctx, old)
	if err != nil {
		return err
	}
	moved, err := e.table.Moved()
	if err != nil {
		return err
	}
	w.same = old != nil && isSame(next, *old)
	said, err := e.isSaid(w, moved)
	if err != nil {
		return err
	}
	if !said {
		if err := e.say(ctx, next, old, oldAt, moved); err != nil {
			return err
		}
	}
	if err := w.settle(ctx); err != nil {
		return err
	}
	e.isSettled = true
	for root := range w.anew {
		e.isNew(root)
	}
	return nil
}

// isSame reports whether two commits have the same files. Their totals may differ all the
// same: these count what is in a file that could not be read.
func isSame(a, b commit.Commit) bool { return bytes.Equal(a.Root, b.Root) && a.Links == b.Links }

// isSaid reports whether there is nothing in a commit that the newest one does not say,
// which can be found. One that takes no content is worth it for another reason. Before
// references are counted, what is stored again may not count as moved: then it is enough
// that a pack was stored.
func (e *Engine) isSaid(w *work, moved uint64) (bool, error) {
	if !w.same || w.lean || moved != 0 {
		return false, nil
	}
	if counted, err := e.table.Counted(); err != nil || !counted && !e.saidAll.Load() {
		return false, err
	}
	lost, err := e.isCommitLost()
	return !lost, err
}

// say completes a commit and publishes it; moved are the moves of slots that it says.
func (e *Engine) say(ctx context.Context, next commit.Commit, old *commit.Commit, oldAt commit.Locator, moved uint64) error {
	own, err := e.finish(ctx, next, old, oldAt)
	if err != nil {
		return err
	}
	if err := e.publishIntended(ctx, moved); err != nil {
		return err
	}
	e.saidAll.Store(true)
	return e.table.Indexed(func(p blockindex.Place) bool { return slices.Contains(own, packID{p.Group, p.Number}) })
}

func (e *Engine) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.progress.Running, e.progress.Started, e.progress.Sent = true, e.now(), 0
}

func (e *Engine) end(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.progress.Running = false
	e.commits++
	e.pace.ended()
	if err != nil && !Partly(err) {
		e.progress.LastError, e.progress.NoRoom = err.Error(), errors.Is(err, ErrNoRoom)
		return
	}
	e.progress.LastError, e.progress.NoRoom, e.progress.Moving, e.progress.Unread = "", false, nil, nil
	var moving *MovingError
	if errors.As(err, &moving) {
		e.progress.Moving = moving.Paths
	}
	var unread *UnreadError
	if errors.As(err, &unread) {
		e.progress.Unread = unread.Paths
	}
}

// noteInMotion tells which files a commit took while they were written.
func (e *Engine) noteInMotion(w *work) {
	slices.Sort(w.inMotion)
	paths := w.paths(slices.Compact(w.inMotion)) // one by several names is taken with each
	e.mu.Lock()
	defer e.mu.Unlock()
	e.progress.InMotion = paths
}

var errStop = errors.New("stop")

func hasMarks(cut *tree.Cut) (bool, error) {
	err := cut.Marks(func(tree.Mark) error { return errStop })
	if errors.Is(err, errStop) {
		return true, nil
	}
	return false, err
}

// partly says which files the commit has not, or not as they are.
func (w *work) partly() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	if len(w.moving) > 0 {
		errs = append(errs, &MovingError{w.paths(w.moving)})
	}
	if len(w.unread) > 0 {
		errs = append(errs, &UnreadError{w.paths(w.unread), w.cause})
	}
	return errors.Join(errs...)
}

func (w *work) paths(inos []tree.Ino) (paths []string) {
	for _, ino := range inos {
		paths = append(paths, w.e.cfg.Tree.Path(ino))
	}
	return paths
}

// build stores contents and directories, and waits until all of it is
// acknowledged.
func (w *work) build(ctx context.Context, old *commit.Commit) (commit.Commit, error) {
	c := commit.Commit{Drive: w.e.cfg.Drive, Epoch: w.e.cfg.Epoch, Number: 1, Time: w.e.now().Unix()}
	var oldLinks link.Link
	if old != nil {
		c.Number, oldLinks = old.Number+1, old.Links
		c.Follows = old.FollowedBy(w.e.self())
	}
	root, links, err := w.run(ctx, oldLinks)
	if err == nil {
		c.Root, err = root.Encode()
	}
	ferr := w.p.flush()
	if ferr != nil && ctx.Err() == nil && errors.Is(err, context.Canceled) {
		err = nil // what ended the rest is why
	}
	if err == nil {
		err = errors.Join(ferr, ctx.Err())
	}
	if err != nil {
		return c, err
	}
	c.Links = links
	c.Files, c.Bytes, err = w.cut.Usage()
	return c, err
}

// finish writes the block index's new segment, the group table and the commit
// into the last packs, and intends the commit. It returns these: the segment has all
// that no older one had, but for what lies in them.
func (e *Engine) finish(ctx context.Context, c commit.Commit, old *commit.Commit, oldAt commit.Locator) ([]packID, error) {
	if old != nil {
		c.Parents = []link.Link{oldAt.Link}
	}
	p, err := e.tail(ctx, c, old, oldAt)
	for again := 0; errors.Is(err, errUnlisted) && again < 2; again++ { // the group is there now
		p, err = e.tail(ctx, c, old, oldAt)
	}
	if err != nil {
		return nil, err
	}
	return p.sent, e.intend(p)
}

// tail writes the last packs of a commit.
func (e *Engine) tail(ctx context.Context, c commit.Commit, old *commit.Commit, oldAt commit.Locator) (complete, error) {
	last := &filling{kind: group.Metadata, b: pack.NewBuilder(metadataClass, e.buffers.get(metadataClass.Size()))}
	idle, err := e.idle()
	if err != nil {
		return complete{}, err
	}
	tail := &tailWriter{e: e, f: last, ctx: ctx, idle: idle}
	if err := tail.segments(&c, old, oldAt); err != nil {
		return complete{}, fmt.Errorf("block index: %w", err)
	}
	if err := tail.groups(&c); err != nil {
		return complete{}, fmt.Errorf("group table: %w", err)
	}
	p, err := tail.commit(c)
	if err != nil {
		return complete{}, fmt.Errorf("commit block: %w", err)
	}
	return p, tail.listsAll(p)
}

// idle returns the packs that nothing needs once the commit under way is out: those
// that this device does not, as long as it is alone.
func (e *Engine) idle() (map[group.ID]group.Bitmap, error) {
	if !e.aloneLately() {
		return nil, nil
	}
	idle, err := e.table.Idle()
	for id, packs := range idle {
		for n := range uint16(group.MaxPacks) {
			if !packs.Has(n) {
				continue
			}
			last, err := e.hasLast(id, n)
			if err != nil {
				return nil, err
			}
			if last {
				packs.Remove(n)
			}
		}
		idle[id] = packs
	}
	return idle, err
}

// settle tells the tree what the newest commit took. A crash before its end costs another
// commit of the same: marks are cleared last, and until there is a commit that was settled,
// or nothing is marked, nothing is given up that rows of the tree may still name.
func (w *work) settle(ctx context.Context) error {
	if err := w.done.pieces(func(some []tree.Settled) error { return w.cut.Settle(ctx, some) }); err != nil {
		return err
	}
	return w.cut.ClearMarks(w.keep)
}
