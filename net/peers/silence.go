package peers

import "time"

// The intervals of silence are parts of DeadAfter, but no shorter than three
// greetings, of which there is one a second at most.
const threeGreetings = 3 * time.Second

// forgottenAfter is after how many times DeadAfter a silent peer is forgotten.
const forgottenAfter = 10

func (o Options) suspectAfter() time.Duration { return max(o.DeadAfter/12, threeGreetings) }

// lately is within what time somebody has to answer again, or we were away between.
func (o Options) lately() time.Duration { return max(o.DeadAfter/72, threeGreetings) }

// stateOf is what is thought of a peer that answered once and that health does not
// judge. silent is for how long others answered and it did not, ago how long ago it
// answered last: that is more, if we were away ourselves or did not ask.
func (o Options) stateOf(silent, ago time.Duration) State {
	switch {
	case silent > max(o.DeadAfter, o.suspectAfter()):
		return Dead
	case silent > o.suspectAfter():
		return Suspect
	case ago > o.suspectAfter():
		return Unknown
	}
	return Alive
}

// watch counts the time in which peers answered. It stands still while nobody does:
// who is silent then is not to blame.
type watch struct {
	total time.Duration
	last  time.Time // when somebody answered last, in this run
}

// answer counts the time since the answer before, if that is not longer ago than
// lately.
func (w *watch) answer(now time.Time, lately time.Duration) {
	if gap := now.Sub(w.last); gap > 0 && gap <= lately {
		w.total += gap
	}
	w.last = now
}
