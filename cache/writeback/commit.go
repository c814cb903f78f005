package writeback

import (
	"context"
	"errors"
	"fmt"

	"skep/cache/state"
	"skep/cache/tree"
	"skep/chunker/blockindex"
	"skep/chunker/commit"
	"skep/chunker/erasure"
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

// tailWriter fills the last pack of a commit. Its blocks are never sought by
// the index but by locators, so that duplicates do not matter.
type tailWriter struct {
	e   *Engine
	f   *filling
	ctx context.Context
}

// put adds a block and returns its locator within the pack. Where the pack is
// full, it is sent and another begun.
func (t *tailWriter) put(plain []byte, refs []link.Link) (commit.Locator, error) {
	prep, err := t.e.sealer.Prepare(link.CBOR, plain)
	if err != nil {
		return commit.Locator{}, err
	}
	if l, ok, err := t.e.table.Find(prep.Tag()); ok || err != nil {
		return t.e.locate(commit.Locator{Link: l}), err // as it was in an earlier commit
	}
	s := prep.Seal(nil)
	off, err := t.f.b.Add(s)
	if err != nil {
		return commit.Locator{}, err
	}
	t.f.refs = append(t.f.refs, refs)
	return commit.Locator{Offset: off, Length: uint32(len(s.Ciphertext)), Link: s.Link}, nil
}

// pieces stores blocks that the commit names by locator. As many as fit go
// into the commit's own pack; what is more goes into packs before it.
func (t *tailWriter) pieces(plains [][]byte) ([]commit.Locator, error) {
	out := make([]commit.Locator, 0, len(plains))
	var extra *filling
	var pending []int
	send := func() error {
		if extra == nil {
			return nil
		}
		where, err := newPacker(t.ctx, t.e).sendNow(extra)
		if err != nil {
			return err
		}
		for _, i := range pending {
			out[i] = out[i].In(where)
		}
		extra, pending = nil, nil
		return nil
	}
	size := 0
	for _, p := range plains {
		size += len(p)
	}
	small := size <= metadataClass.Size()/4
	for _, p := range plains {
		if small {
			l, err := t.put(p, nil)
			if err != nil {
				return nil, err
			}
			out = append(out, l)
			continue
		}
		if extra == nil {
			extra = &filling{kind: group.Metadata, b: pack.NewBuilder(metadataClass, nil)}
		}
		l, err := (&tailWriter{e: t.e, f: extra, ctx: t.ctx}).put(p, nil)
		if errors.Is(err, pack.ErrFull) {
			if err := send(); err != nil {
				return nil, err
			}
			extra = &filling{kind: group.Metadata, b: pack.NewBuilder(metadataClass, nil)}
			l, err = (&tailWriter{e: t.e, f: extra, ctx: t.ctx}).put(p, nil)
		}
		if err != nil {
			return nil, err
		}
		pending = append(pending, len(out))
		out = append(out, l)
	}
	return out, send()
}

// segments gives the commit its index: the old segments, and one of what is
// new, merged with as many of the newest old ones as the policy says.
func (t *tailWriter) segments(c *commit.Commit, old *commit.Commit, oldAt commit.Locator) ([]blockindex.Entry, error) {
	fresh, err := t.e.table.NewEntries()
	if err != nil {
		return nil, err
	}
	var segs []commit.Segment
	if old != nil {
		segs = t.whereNow(old.Segments, oldAt)
	}
	if len(fresh) == 0 {
		c.Segments = segs
		return nil, nil
	}
	counts := make([]int, 0, len(segs)+1)
	for _, s := range segs {
		counts = append(counts, int(s.Count))
	}
	from := blockindex.MergeFrom(append(counts, len(fresh)))
	lists := [][]blockindex.Entry{fresh}
	for _, s := range segs[min(from, len(segs)):] {
		entries, err := t.readSegment(s)
		if err != nil {
			return nil, err
		}
		lists = append(lists, entries)
	}
	dead, err := t.e.deadPlaces()
	if err != nil {
		return nil, err
	}
	merged := blockindex.Merge(lists, dead)
	seg := commit.Segment{Count: uint64(len(merged))}
	plains := blockindex.Encode(merged)
	locs, err := t.pieces(plains)
	if err != nil {
		return nil, err
	}
	for i, plain := range plains {
		entries, err := blockindex.Decode(plain)
		if err != nil {
			return nil, fmt.Errorf("BUG: writeback: %w", err)
		}
		seg.Pieces = append(seg.Pieces, commit.Piece{First: entries[0].Link.Hash, At: locs[i]})
	}
	c.Segments = append(segs[:min(from, len(segs)):min(from, len(segs))], seg)
	return fresh, nil
}

// whereNow brings the locators of old segments up to date: folding may have
// moved the blocks.
func (t *tailWriter) whereNow(segs []commit.Segment, at commit.Locator) []commit.Segment {
	out := make([]commit.Segment, len(segs))
	for i, s := range segs {
		out[i] = commit.Segment{Count: s.Count, Pieces: make([]commit.Piece, len(s.Pieces))}
		for j, p := range s.Pieces {
			out[i].Pieces[j] = commit.Piece{First: p.First, At: t.e.locate(p.At.In(at))}
		}
	}
	return out
}

func (t *tailWriter) readSegment(s commit.Segment) ([]blockindex.Entry, error) {
	var out []blockindex.Entry
	for _, p := range s.Pieces {
		plain, err := t.e.reader.At(t.ctx, p.At)
		if err != nil {
			return nil, err
		}
		entries, err := blockindex.Decode(plain)
		if err != nil {
			return nil, err
		}
		out = append(out, entries...)
	}
	return out, nil
}

// locate returns the newest place of a block that is named by a locator.
func (e *Engine) locate(l commit.Locator) commit.Locator {
	b, ok, err := e.table.Get(l.Link.Hash)
	if err != nil || !ok || len(b.Places) == 0 {
		return l
	}
	p := b.Places[0]
	g, ok, err := e.table.Group(p.Group)
	if err != nil || !ok {
		return l
	}
	return commit.Locator{Group: p.Group, Number: p.Number, Class: g.Class, Coding: g.Coding,
		Offset: p.Offset, Length: p.Length, Link: l.Link}
}

// groups gives the commit its group table. The commit's own pack will lie in a
// group, too, which may have to be founded: it is done now, so that the table
// has it.
func (t *tailWriter) groups(c *commit.Commit) error {
	all, err := t.e.table.Groups()
	if err != nil {
		return err
	}
	size := t.f.b.Used() + len(t.f.refs)*pack.PerBlock + pack.Fixed
	for _, p := range commit.EncodeGroups(all) {
		size += len(p) + 512
	}
	size += len(c.Sign(t.e.cfg.Device)) + 4<<10
	class, ok := erasure.ClassFor(size)
	if !ok {
		return fmt.Errorf("%d bytes: %w", size, pack.ErrFull)
	}
	if err := t.e.ensureGroup(t.ctx, groupKind{class, group.Metadata}); err != nil {
		return err
	}
	if all, err = t.e.table.Groups(); err != nil {
		return err
	}
	c.Groups, err = t.pieces(commit.EncodeGroups(all))
	return err
}

// deadPlaces tells which places are in dead packs.
func (e *Engine) deadPlaces() (func(blockindex.Place) bool, error) {
	all, err := e.table.Groups()
	if err != nil {
		return nil, err
	}
	dead := make(map[group.ID]group.Bitmap, len(all))
	for _, g := range all {
		dead[g.ID] = g.Dead
	}
	return func(p blockindex.Place) bool {
		d := dead[p.Group]
		return d.Has(p.Number)
	}, nil
}
