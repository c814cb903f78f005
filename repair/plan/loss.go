package plan

// Loss is the probability that fewer than k of some holders are reachable at
// one instant, given how much of its time each is: the lower tail of a Poisson
// binomial distribution, computed exactly. All terms are positive, so that it
// is right in relative terms however small it is.
func Loss(k int, availability []float64) float64 {
	t := newTail(k)
	for _, p := range availability {
		t.add(p)
	}
	return t.sum()
}

// lossOf is Loss for n holders of equal availability.
func lossOf(k, n int, p float64) float64 {
	t := newTail(k)
	for range n {
		t.add(p)
	}
	return t.sum()
}

// slotsFor returns the smallest n for which Loss is at most target with every
// holder at availability p, or false where it is more than most.
func slotsFor(k, most int, p, target float64) (n int, ok bool) {
	t := newTail(k)
	for n = 1; n <= most; n++ {
		t.add(p)
		if n >= k && t.sum() <= target {
			return n, true
		}
	}
	return 0, false
}

// tail is the distribution of how many holders are reachable, below k.
type tail []float64

func newTail(k int) tail {
	t := make(tail, k)
	if k > 0 {
		t[0] = 1
	}
	return t
}

// add takes in one more holder, reachable with probability p.
func (t tail) add(p float64) {
	for j := len(t) - 1; j > 0; j-- {
		t[j] = t[j]*(1-p) + t[j-1]*p
	}
	if len(t) > 0 {
		t[0] *= 1 - p
	}
}

func (t tail) sum() (s float64) {
	for _, x := range t {
		s += x
	}
	return s
}
