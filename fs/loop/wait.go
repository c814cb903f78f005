package loop

import (
	"sync/atomic"
	"time"
)

// brief is how soon a wait must be over for it to cost less than waking another
// worker to read meanwhile, and putting it to sleep again.
const brief = patience / 2

// mostBrief is how far the score of a kind of request goes.
const mostBrief = 8

// waits are scores for each kind of request, by the kernel's numbers: how often,
// lately, those that said they would wait were answered briefly after, less how
// often they were not.
type waits [64]atomic.Int32

func (s *waits) of(code uint32) *atomic.Int32 { return &s[code%uint32(len(s))] }

// areBrief reports whether a request of this kind is likely to wait for a moment
// only.
func (s *waits) areBrief(code uint32) bool { return s.of(code).Load() >= mostBrief/2 }

// saw takes note of how long a request waited.
func (s *waits) saw(code uint32, d time.Duration) {
	score := s.of(code)
	if d < brief {
		score.Store(min(score.Load()+1, mostBrief))
	} else {
		score.Store(max(score.Load()-1, 0))
	}
}

// wait says that the request of this worker is about to wait. If that is likely
// to be over at once, and the request came alone, the worker keeps reading;
// should it take longer after all, it is found stuck (see patience). Of many
// requests, each is to find those before it waiting, so that they wait together.
func (w *worker) wait() {
	if !w.since.CompareAndSwap(0, time.Now().UnixNano()) {
		return
	}
	in := at[header](w.request)
	if !w.alone || !w.l.waits.areBrief(in.Opcode) {
		w.leave()
	}
}

// came takes note of whether the request that was read came alone: nobody's was
// waiting before it but that of the same thread, which makes one after the other.
func (w *worker) came() {
	in := at[header](w.request)
	w.alone = w.waiting <= 0 || in.Pid == w.by
	if in.Pid != 0 { // RELEASE and FORGET are of no thread
		w.by = in.Pid
	}
}

// waited takes note of how long the request waited that was handled, if it did.
func (w *worker) waited(code uint32) {
	if since := w.since.Swap(0); since != 0 {
		w.l.waits.saw(code, time.Duration(time.Now().UnixNano()-since))
	}
}
