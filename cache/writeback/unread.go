package writeback

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"skep/cache/tree"
)

// unreadFiles are those that commits left as they were, as a part of them could not
// be read, and when each was tried last. To try one may take as long as a read that
// nobody answers; so a commit tries few of them, those first that were not tried for
// the longest time, and all as soon as one of these could be read.
type unreadFiles struct {
	tried map[tree.Ino]time.Time
	all   bool
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

// noteTried takes note of which files a commit could not read, all of them if it was
// published. It reports whether another commit would take more.
func (e *Engine) noteTried(w *work, published bool) (more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next, rested := map[tree.Ino]time.Time{}, false
	if !published {
		next = e.unread.tried
	}
	for _, ino := range w.unread {
		next[ino] = e.unread.tried[ino]
		if w.tried[ino] {
			next[ino] = e.now()
		} else {
			rested = true
		}
	}
	read := false
	for ino := range w.due {
		_, still := next[ino]
		read = read || !still
	}
	e.unread = unreadFiles{next, read}
	return read && rested
}
