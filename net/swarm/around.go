package swarm

import (
	"fmt"
	"time"

	"skep/chunker/group"
)

// aroundAfter is how long a read goes on with the holders that the table names
// before it asks around for others: slots may have moved since.
const aroundAfter = 2 * time.Second

// around is the part of one read in the search for holders. It begins when the
// read has nobody else to ask, or takes long.
type around struct {
	s      *Swarm
	ref    group.PackRef
	timer  *time.Timer
	search *search         // nil: not begun
	next   <-chan struct{} // closed when there is news
	done   bool            // all were asked, and told of
}

func (s *Swarm) around(ref group.PackRef) *around {
	return &around{s: s, ref: ref, timer: time.NewTimer(aroundAfter)}
}

// due tells when it is time to begin.
func (a *around) due() <-chan time.Time { return a.timer.C }

// begin begins, if that was not done.
func (a *around) begin() {
	if a.search == nil && a.s.c.Finder != nil {
		a.search = a.s.look(a.ref.Group)
		a.next = ready
	}
}

// ready is the news of a search of which nothing was heard yet.
var ready = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// news is closed when holders has something new.
func (a *around) news() <-chan struct{} { return a.next }

// holders are those that were found so far.
func (a *around) holders() holders {
	var h holders
	if h, a.next, a.done = a.search.holders(a.ref.Number); a.done {
		a.next = nil
	}
	return h
}

// goesOn reports whether so many are said to be holders that some have not been
// asked yet: then it is no wonder that nothing has come.
func (a *around) goesOn() bool { return a.search != nil && a.search.goesOn() }

// over reports whether nothing more is to be expected.
func (a *around) over() bool { return a.done || a.s.c.Finder == nil }

// none says why nobody was found.
func (a *around) none() error {
	if a.search == nil {
		return fmt.Errorf("group %v: %w", a.ref.Group, ErrAbsent)
	}
	return fmt.Errorf("group %v: %w", a.ref.Group, a.search.none())
}

func (a *around) leave() {
	a.timer.Stop()
	if a.search != nil {
		a.search.leave()
	}
}
