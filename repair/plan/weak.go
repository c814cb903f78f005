package plan

import "skep/chunker/erasure"

// clearly is by which factor the chance of loss has to differ for one coding to be
// clearly safer than another that has more than half of its parity.
const clearly = 100

// Weak reports whether packs in a coding are clearly less safe than they would be as
// chosen, with holders of this availability: they survive at most half as many losses,
// or fewer, with a chance of loss that is many times as high. What meets the target is
// not weak.
//
// What is moved from a weak coding to the chosen one survives more losses, each time.
// So nothing is moved for ever to and fro while peers come and go, and little often
// while a swarm grows.
func Weak(c erasure.Coding, best Choice, availability float64) bool {
	has, could := Survives(c), Survives(best.Coding)
	if best.Coding.N == 0 || has >= could {
		return false
	}
	loss := LossOf(c, availability)
	return loss > DefaultTarget && (2*has <= could || loss >= clearly*best.Loss)
}

// LossOf is the probability that at one instant too few holders of a pack are
// reachable, all of them being of the same availability.
func LossOf(c erasure.Coding, availability float64) float64 {
	return lossOf(int(c.K), int(c.N), believed(availability))
}

// Survives is how many of a pack's holders may be lost.
func Survives(c erasure.Coding) int { return int(c.N) - int(c.K) }
