package writeback

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"skep/cache/tree"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// unreadFiles are those that commits left as they were, as a part of them could not
// be read, and when each was tried last. To try one may take as long as a read that
// nobody answers; so a commit tries few of them, those first that were not tried for
// the longest time, and all as soon as one of these could be read.
type unreadFiles struct {
	tried  map[tree.Ino]time.Time
	chunks map[tree.Ino][]int64 // that could not be read in any of these tries, one of each
	all    bool
}

// errRests says that a file was not tried.
var errRests = fmt.Errorf("%w: others were tried", tree.ErrUnread)

// errMore says that a commit is published, and that another one takes more.
var errMore = fmt.Errorf("%w: files can be read again", errAgain)

// due are the files that a commit tries again.
func (u *unreadFiles) due() map[tree.Ino]bool {
	inos := slices.SortedFunc(maps.Keys(u.tried), func(a, b tree.Ino) int {
		return cmp.Or(u.tried[a].Compare(u.tried[b]), cmp.Compare(a, b))
	})
	if !u.all {
		inos = inos[:min(mostUnread, len(inos))]
	}
	out := make(map[tree.Ino]bool, len(inos))
	for _, ino := range inos {
		out[ino] = true
	}
	return out
}

// mayTry reports whether a file is to be read now.
func (w *work) mayTry(in tree.Inode) bool {
	if !in.Partial() {
		return true // nothing of it has to be fetched
	}
	ino := tree.Ino(in.Record.ID)
	w.mu.Lock()
	defer w.mu.Unlock()
	_, known := w.e.unread.tried[ino]
	return w.failures < mostUnread && (!known || w.due[ino])
}

// tryAgain reads what could not be read of a file before, and the old version's nodes that
// its change needs. What is stored before it turns out that one of these cannot be read is
// stored in vain, again and again.
func (w *work) tryAgain(ctx context.Context, f *tree.CutFile) error {
	ino := tree.Ino(f.Record.ID)
	if _, failed := w.e.unread.tried[ino]; !failed {
		return nil
	}
	hole := func() (link.Link, error) { return link.Link{Codec: link.Raw}, nil } // any, but not stored
	runs, err := runsOf(f, hole)
	if err != nil {
		return err
	}
	for _, i := range w.e.unread.chunks[ino] {
		if !slices.ContainsFunc(runs, func(r dag.Run) bool { return r.Leaf.IsZero() && r.From <= i && i < r.To }) {
			continue
		}
		if err := readChunk(ctx, f, i); err != nil {
			return err
		}
	}
	return dag.ReachFile(ctx, w.p, f.Old, f.Size, runs)
}

// readChunk reads a chunk to see whether it can be read.
func readChunk(ctx context.Context, f *tree.CutFile, i int64) error {
	buf := plainBuffers.get()
	defer plainBuffers.put(buf)
	off := i * dag.ChunkSize
	return f.ReadAt(ctx, buf[:min(dag.ChunkSize, f.Size-off)], off)
}

// noteTried takes note of which files a commit could not read, all of them if it was
// published. It reports whether another commit would take more.
func (e *Engine) noteTried(w *work, published bool) (more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next, chunks, rested := map[tree.Ino]time.Time{}, map[tree.Ino][]int64{}, false
	if !published {
		next, chunks = e.unread.tried, e.unread.chunks
	}
	for _, ino := range w.unread {
		next[ino] = e.unread.tried[ino]
		if w.tried[ino] {
			next[ino] = e.now()
		} else {
			rested = true
		}
		chunks[ino] = e.unread.chunks[ino]
		if i, known := w.chunks[ino]; known { // the last one first: the others may be read by now
			others := slices.DeleteFunc(slices.Clone(chunks[ino]), func(o int64) bool { return o == i })
			chunks[ino] = append([]int64{i}, others...)
		}
	}
	read := false
	for ino := range w.due {
		_, still := next[ino]
		read = read || !still
	}
	e.unread = unreadFiles{next, chunks, read}
	return read && rested
}
