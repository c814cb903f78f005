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
)

// unreadFiles are those that commits left as they were, as a part of them could not
// be read, and when each was tried last. To try one may take as long as a read that
// nobody answers; so a commit tries few of them, those first that were not tried for
// the longest time, and all as soon as one of these could be read.
type unreadFiles struct {
	tried  map[tree.Ino]time.Time
	chunks map[tree.Ino]int64 // that could not be read: of each file one, if it is known
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

// tryAgain reads the chunk of a file that could not be read before, if it is to be stored.
// What is before it would be stored in vain otherwise, again and again.
func (w *work) tryAgain(ctx context.Context, f *tree.CutFile, runs []dag.Run) error {
	i, known := w.e.unread.chunks[tree.Ino(f.Record.ID)]
	if !known || !slices.ContainsFunc(runs, func(r dag.Run) bool { return r.Leaf.IsZero() && r.From <= i && i < r.To }) {
		return nil
	}
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
	next, chunks, rested := map[tree.Ino]time.Time{}, map[tree.Ino]int64{}, false
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
		if i, known := w.chunks[ino]; known {
			chunks[ino] = i
		} else if i, known := e.unread.chunks[ino]; known {
			chunks[ino] = i
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
