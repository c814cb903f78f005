package writeback

import (
	"context"
	"errors"
	"fmt"

	"skep/cache/state"
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
	defer e.buffers.drain()

	cut, err := e.cfg.Tree.Cut()
	if err != nil {
		return err
	}
	defer cut.Close()
	old, oldAt := e.reader.Commit()
	changed, err := hasMarks(cut)
	if err != nil {
		return err
	}
	moved := e.takeMoved()
	if !changed && !moved && old != nil {
		return e.afterwards(ctx, cut.Seq()) // reclaiming may be unfinished
	}
	defer func() {
		if err != nil && moved {
			e.mu.Lock()
			e.moved = true
			e.mu.Unlock()
		}
	}()
	if err := e.foldSome(ctx); err != nil {
		return fmt.Errorf("folding: %w", err)
	}
	w := newWork(ctx, e, cut)
	next, err := w.build(ctx, old)
	if err != nil {
		return err
	}
	done, err := e.finish(ctx, w, next, old, oldAt)
	if err != nil {
		return err
	}
	if err := e.settle(ctx, w, done, oldAt); err != nil {
		return err
	}
	if err := e.afterwards(ctx, cut.Seq()); err != nil {
		e.cfg.Log.Warn("reclaiming space was put off", "err", err)
	}
	return w.movingError()
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
	var moving *MovingError
	switch {
	case errors.As(err, &moving):
		e.progress.LastError, e.progress.Moving = "", moving.Paths
	case err != nil:
		e.progress.LastError = err.Error()
	default:
		e.progress.LastError, e.progress.Moving = "", nil
	}
}

var errStop = errors.New("stop")

func hasMarks(cut *tree.Cut) (bool, error) {
	err := cut.Marks(func(tree.Mark) error { return errStop })
	if errors.Is(err, errStop) {
		return true, nil
	}
	return false, err
}

func (w *work) movingError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.moving) == 0 {
		return nil
	}
	m := &MovingError{}
	for _, ino := range w.moving {
		m.Paths = append(m.Paths, w.e.cfg.Tree.Path(ino))
	}
	return m
}

// build stores contents and directories, and waits until all of it is
// acknowledged.
func (w *work) build(ctx context.Context, old *commit.Commit) (commit.Commit, error) {
	c := commit.Commit{Drive: w.e.cfg.Drive, Epoch: w.e.cfg.Epoch, Number: 1, Time: w.e.now().Unix()}
	var oldLinks link.Link
	if old != nil {
		c.Number, oldLinks = old.Number+1, old.Links
	}
	root, links, err := w.run(ctx, oldLinks)
	if err == nil {
		c.Root, err = root.Encode()
	}
	if ferr := w.p.flush(); err == nil || errors.Is(err, context.Canceled) {
		err = errors.Join(ferr, ctx.Err(), err)
	}
	if err != nil {
		return c, err
	}
	c.Links = links
	c.Files, c.Bytes = w.e.cfg.Tree.Usage()
	return c, nil
}

// published is a commit that is out.
type published struct {
	head    commit.Head
	signed  []byte
	commit  commit.Commit
	indexed []blockindex.Entry
}

// finish writes the block index's new segment, the group table and the commit
// into the last pack, and publishes the head.
func (e *Engine) finish(ctx context.Context, w *work, c commit.Commit, old *commit.Commit, oldAt commit.Locator) (published, error) {
	last := &filling{kind: group.Metadata, b: pack.NewBuilder(metadataClass, e.buffers.get(metadataClass))}
	tail := &tailWriter{e: e, f: last, ctx: ctx}
	p := published{}
	var err error
	if p.indexed, err = tail.segments(&c, old, oldAt); err != nil {
		return p, fmt.Errorf("block index: %w", err)
	}
	if err := tail.groups(&c); err != nil {
		return p, fmt.Errorf("group table: %w", err)
	}
	if old != nil {
		c.Parents = []link.Link{oldAt.Link}
	}
	p.signed = c.Sign(e.cfg.Device)
	refs, err := c.Refs()
	if err != nil {
		return p, err
	}
	at, err := tail.put(p.signed, refs)
	if err != nil {
		return p, fmt.Errorf("commit block: %w", err)
	}
	packer := newPacker(ctx, e)
	where, err := packer.sendNow(tail.f)
	if err != nil {
		return p, err
	}
	if p.commit, err = commit.Parse(p.signed); err != nil {
		return p, fmt.Errorf("BUG: writeback: %w", err)
	}
	p.head = commit.Head{Drive: e.cfg.Drive, Device: p.commit.Device, Number: c.Number, Time: c.Time, Commit: at.In(where)}
	if err := e.cfg.Publish(ctx, p.head); err != nil {
		return p, fmt.Errorf("publish the head: %w", err)
	}
	return p, nil
}

// settle makes the published commit the newest one here: what it took is clean.
// Each step can be done again: a crash between them costs another commit.
func (e *Engine) settle(ctx context.Context, w *work, p published, oldAt commit.Locator) error {
	var b state.Batch
	SaveCommit(&b, p.head, p.signed)
	if _, err := e.cfg.State.Apply(&b); err != nil {
		return err
	}
	e.reader.SetCommit(&p.commit, p.head.Commit)
	if err := e.table.Publish(p.head.Commit.Link, oldAt.Link); err != nil {
		return err
	}
	if err := e.table.Indexed(p.indexed); err != nil {
		return err
	}
	if err := w.cut.Settle(ctx, w.done); err != nil {
		return err
	}
	if err := w.cut.ClearMarks(w.keep); err != nil {
		return err
	}
	e.mu.Lock()
	e.progress.Number, e.progress.LastDone = p.commit.Number, e.now()
	e.mu.Unlock()
	return nil
}
