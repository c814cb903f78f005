package writeback

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"skep/cache/tree"
	"skep/chunker/block"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// sealAhead is how many chunks of one file are read and sealed beside the one
// that the file's tree is waiting for.
const sealAhead = 3

// fileRecord returns an inode's record for the commit; for a dirty file it
// first stores the content. A file of which no reading counts, as it is written, or
// of which what is not here cannot be read, keeps its newest version: keep is true then, and
// skip if it has none that could be said again: nothing becomes of the name.
func (w *work) fileRecord(ctx context.Context, in tree.Inode) (rec dag.Inode, keep, skip bool, err error) {
	if !in.Dirty {
		return in.Record, false, false, nil
	}
	switch {
	case w.lean && w.needsRoom(in):
		err = errNoRoom
	case w.mayTry(in):
		rec, err = w.storePatiently(ctx, in)
	default:
		err = errRests
	}
	switch {
	case errors.Is(err, tree.ErrMoving):
		w.noteMoving(tree.Ino(in.Record.ID))
	case errors.Is(err, tree.ErrUnread):
		w.noteUnread(tree.Ino(in.Record.ID), err)
	case !errors.Is(err, tree.ErrGone) && !errors.Is(err, errNoRoom):
		return rec, false, false, err
	}
	if !in.Committed() {
		w.leaveOut(tree.Ino(in.Record.ID))
		return rec, true, true, nil
	}
	before, there, err := w.recordBefore(ctx, in)
	if err != nil {
		return rec, false, false, err
	}
	if !there && in.TinyInCommit() {
		w.leaveOut(tree.Ino(in.Record.ID))
		return rec, true, true, nil
	}
	old := in.Record
	old.Size, old.Inline = in.CommittedSize(), before.Inline
	// Programs take content of the same size and time for the same.
	if there {
		old.Mtime, old.Ctime = before.Mtime, before.Ctime
	} else { // any time but that of what is in the file now
		old.Mtime.Sec--
	}
	return old, true, false, nil
}

// recordBefore returns the record that the commit before has of a file, with the content
// that it is known to have there, if it is found in the table of links, or under the name
// that the file has now. Only that commit knows the content of a tiny one: that is also
// sought under the name that it had. What cannot be read is passed over: a record in a block
// of its own is not needed for the new version of the directory, or table.
func (w *work) recordBefore(ctx context.Context, in tree.Inode) (rec dag.Inode, there bool, err error) {
	tiny := in.TinyInCommit()
	is := func(rec dag.Inode) bool {
		return rec.ID == in.Record.ID && !rec.Linked && rec.Content == in.Record.Content && rec.Size == in.CommittedSize()
	}
	if old, _ := w.e.reader.Commit(); in.Multi && old != nil && !old.Links.IsZero() {
		rec, there, err := dag.LookupDir(ctx, w.p, w.e.cfg.Names, old.Links, dag.InodeName(in.Record.ID))
		if err != nil && !errors.Is(err, tree.ErrUnread) {
			return rec, false, err
		}
		if err == nil && there && is(rec) { // else it may be newer than what was settled of the file
			return rec, true, nil
		}
	}
	rec, there, err = w.before(ctx, tree.Mark{Dir: in.Parent, Name: in.Name})
	if err != nil && !errors.Is(err, tree.ErrUnread) {
		return rec, false, err
	}
	if err == nil && there && is(rec) {
		return rec, true, nil
	}
	if !tiny {
		return dag.Inode{}, false, nil
	}
	w.tinyOnce.Do(func() { w.tiny, w.tinyErr = w.findTiny(ctx) })
	rec, there = w.tiny[tree.Ino(in.Record.ID)]
	return rec, there, w.tinyErr
}

// findTiny returns the records that the commit before has of files with their content in
// there, that have changed, and that it knows by names which led elsewhere since.
func (w *work) findTiny(ctx context.Context) (map[tree.Ino]dag.Inode, error) {
	out := map[tree.Ino]dag.Inode{}
	err := w.cut.Marks(func(m tree.Mark) error {
		if m.Dir == 0 || m.Dir == tree.Links {
			return nil
		}
		rec, there, err := w.before(ctx, m)
		if errors.Is(err, tree.ErrUnread) {
			return nil
		}
		if err != nil || !there || len(rec.Inline) == 0 || rec.Mode&dag.ModeType != dag.ModeRegular {
			return err
		}
		ino := tree.Ino(rec.ID)
		in, there, err := w.cut.Inode(ino)
		if err == nil && there && in.Dirty && in.TinyInCommit() {
			out[ino] = rec
		}
		return err
	})
	return out, err
}

// storePatiently stores the content of one dirty file as it is at one moment; if it
// is written again and again, as a power cut would leave it.
func (w *work) storePatiently(ctx context.Context, in tree.Inode) (rec dag.Inode, err error) {
	for range w.triesToRest(in) {
		if rec, err = w.storeFile(ctx, in, tree.Whole); !errors.Is(err, tree.ErrMoving) {
			return rec, err
		}
		select {
		case <-time.After(betweenTries):
		case <-ctx.Done():
			return rec, ctx.Err()
		}
	}
	w.noteRestless(tree.Ino(in.Record.ID))
	if rec, err = w.storeFile(ctx, in, tree.Ordered); !errors.Is(err, tree.ErrMoving) {
		return rec, err
	}
	return w.storeFile(ctx, in, tree.Copied)
}

// betweenTries is how long a file that was written while it was read is left alone
// before it is read again.
const betweenTries = 30 * time.Millisecond

// triesToRest is how often a file is read in the hope that it is at rest: a small one
// costs little, and one that was not before is hardly so now.
func (w *work) triesToRest(in tree.Inode) int {
	small, restless := in.Record.Size <= dag.ChunkSize, w.e.restless[tree.Ino(in.Record.ID)]
	switch {
	case small && restless:
		return 1
	case small:
		return 20
	case restless:
		return 0
	}
	return 2
}

// storeFile stores the content of one dirty file.
func (w *work) storeFile(ctx context.Context, in tree.Inode, how tree.Reading) (dag.Inode, error) {
	f, err := w.cut.OpenFile(ctx, in, how)
	if err != nil {
		return dag.Inode{}, err
	}
	defer f.Close()
	rec := f.Record
	rec.Size, rec.Content, rec.Inline = f.Size, link.Link{}, nil
	if f.IsTiny() {
		rec.Inline = make([]byte, f.Size)
		err = f.ReadAt(ctx, rec.Inline, 0)
	} else {
		rec.Content, err = w.storeContent(ctx, f)
	}
	if errors.Is(err, tree.ErrUnread) && !f.IsTiny() && !f.Partial() { // it is the old version's nodes
		f.Old = dag.File{}
		rec.Content, err = w.storeContent(ctx, f)
	}
	if err == nil {
		err = f.Taken()
	}
	if err != nil {
		return dag.Inode{}, err
	}
	if f.Moved {
		w.noteInMotion(tree.Ino(rec.ID))
	}
	w.settled(tree.Settled{Ino: tree.Ino(rec.ID), Content: rec.Content, Size: rec.Size})
	return rec, nil
}

func (w *work) storeContent(ctx context.Context, f *tree.CutFile) (link.Link, error) {
	if err := w.tryAgain(ctx, f); err != nil {
		return link.Link{}, err
	}
	runs, err := runsOf(f, func() (link.Link, error) { return w.zeroChunk(ctx) })
	if err != nil {
		return link.Link{}, err
	}
	s := newSealing(ctx, w, f, runs)
	defer s.stop()
	file, err := dag.WriteFile(ctx, w.p, f.Old, f.Size, runs, s.leaf)
	return file.Root, err
}

// runsOf lists the changed chunks of a file, holes apart: these have the chunk zeros.
func runsOf(f *tree.CutFile, zeros func() (link.Link, error)) ([]dag.Run, error) {
	var runs []dag.Run
	for _, r := range f.Changed() {
		for at := r.From; at < r.To; {
			from, to := f.NextData(at)
			from, to = max(from, at), min(max(to, at), r.To)
			// Whole chunks of the hole before the data.
			hole := min(from, r.To) / dag.ChunkSize * dag.ChunkSize
			if hole > at {
				zero, err := zeros()
				if err != nil {
					return nil, err
				}
				runs = appendRun(runs, dag.Run{From: at / dag.ChunkSize, To: hole / dag.ChunkSize, Leaf: zero})
				at = hole
				continue
			}
			end := (max(to, at+1) + dag.ChunkSize - 1) / dag.ChunkSize * dag.ChunkSize
			runs = appendRun(runs, dag.Run{From: at / dag.ChunkSize, To: chunksIn(min(end, f.Size))})
			at = end
		}
	}
	return runs, nil
}

func chunksIn(size int64) int64 { return (size + dag.ChunkSize - 1) / dag.ChunkSize }

// appendRun adds a run, joining it to the last one if they are alike.
func appendRun(runs []dag.Run, r dag.Run) []dag.Run {
	if n := len(runs); n > 0 && runs[n-1].To == r.From && runs[n-1].Leaf == r.Leaf {
		runs[n-1].To = r.To
		return runs
	}
	return append(runs, r)
}

// zeroChunk is the link of a whole chunk of zeros.
func (w *work) zeroChunk(ctx context.Context) (link.Link, error) {
	w.zeroOnce.Do(func() { w.zero, w.zeroErr = w.p.Put(ctx, link.Raw, make([]byte, dag.ChunkSize), nil) })
	return w.zero, w.zeroErr
}

// sealing reads and seals the chunks of one file ahead of the tree above them.
type sealing struct {
	ctx    context.Context
	cancel context.CancelFunc
	w      *work
	f      *tree.CutFile
	todo   []int64 // chunks not begun yet
	flying map[int64]chan sealed
	wg     sync.WaitGroup
}

type sealed struct {
	l   link.Link
	err error
}

func newSealing(ctx context.Context, w *work, f *tree.CutFile, runs []dag.Run) *sealing {
	ctx, cancel := context.WithCancel(ctx)
	s := &sealing{ctx: ctx, cancel: cancel, w: w, f: f, flying: map[int64]chan sealed{}}
	for _, r := range runs {
		if !r.Leaf.IsZero() {
			continue
		}
		for i := r.From; i < r.To; i++ {
			s.todo = append(s.todo, i)
		}
	}
	return s
}

// leaf returns the link of a chunk; WriteFile asks in order.
func (s *sealing) leaf(ctx context.Context, i int64) (link.Link, error) {
	for len(s.todo) > 0 && len(s.flying) <= sealAhead {
		s.begin(s.todo[0])
		s.todo = s.todo[1:]
	}
	ch, ok := s.flying[i]
	if !ok {
		return link.Link{}, fmt.Errorf("BUG: writeback: chunk %d was not to be sealed", i)
	}
	delete(s.flying, i)
	select {
	case r := <-ch:
		return r.l, r.err
	case <-ctx.Done():
		return link.Link{}, ctx.Err()
	}
}

func (s *sealing) begin(i int64) {
	ch := make(chan sealed, 1)
	s.flying[i] = ch
	s.wg.Go(func() {
		l, err := s.w.sealChunk(s.ctx, s.f, i)
		ch <- sealed{l, err}
	})
}

func (s *sealing) stop() {
	s.cancel()
	s.wg.Wait()
}

// sealChunk reads one chunk and puts it into a pack.
func (w *work) sealChunk(ctx context.Context, f *tree.CutFile, i int64) (link.Link, error) {
	select {
	case w.e.cpu <- struct{}{}:
		defer func() { <-w.e.cpu }()
	case <-ctx.Done():
		return link.Link{}, ctx.Err()
	}
	buf := plainBuffers.get()
	defer plainBuffers.put(buf)
	off := i * dag.ChunkSize
	end := block.Headroom + min(dag.ChunkSize, f.Size-off)
	if err := f.ReadAt(ctx, buf[block.Headroom:end], off); err != nil {
		if errors.Is(err, tree.ErrUnread) {
			w.noteChunk(tree.Ino(f.Record.ID), i)
		}
		return link.Link{}, err
	}
	return w.p.putFramed(ctx, link.Raw, buf[:end], nil)
}
