package plan

import (
	"fmt"
	"math"
	"strconv"

	"skep/chunker/erasure"
)

// Summary says in one line what the plan does, for status.
func (p Plan) Summary() string {
	if p.Peers == 0 {
		return "no peer to store with"
	}
	c := p.For(erasure.MaxClass)
	return fmt.Sprintf("%v, %.2f bytes stored for each byte, survives the loss of any %s",
		c.Coding, c.Expansion(), count(int(c.Coding.N-c.Coding.K), "holder"))
}

// Shortfall says, in sentences for status, how the plan falls short of what it
// should give and what is missing. It is empty for a plan that meets its
// target, survives the loss of any one domain, and leaves spare peers. Of what is
// stored already, the worst is out of reach with a chance of kept.
func (p Plan) Shortfall(kept float64) []string {
	if p.Peers == 0 {
		return []string{"No peer with room is known: nothing leaves this device until there is one."}
	}
	var out []string
	if !p.Met() || kept > p.Target {
		out = append(out, p.distance(max(kept, p.Loss())))
	}
	if !p.DomainSafe {
		out = append(out, p.domainWords())
	}
	if p.Spares == 0 {
		out = append(out, "There is no spare peer: a shard that is lost cannot be rebuilt elsewhere.")
	}
	return out
}

func (p Plan) distance(loss float64) string {
	s := fmt.Sprintf("At any moment the drive is out of the swarm's reach with a chance of %s; the target is %s.",
		odds(loss), odds(p.Target))
	if p.Met() {
		return s
	}
	if p.Missing > 0 {
		return s + fmt.Sprintf(" About %s (there %.0f %% of the time) would meet it.",
			count(p.Missing, "more peer"), 100*p.Availability)
	}
	return s + fmt.Sprintf(" Peers are there only %.0f %% of the time: more of them would not meet it, steadier ones would.", 100*p.Availability)
}

func (p Plan) domainWords() string {
	if p.Domains == 1 {
		return "As far as is known, all peers are in one place, such as one machine or network: what fails one may fail all."
	}
	return fmt.Sprintf("The peers are in %d places, such as networks: the loss of one of them may be too much.", p.Domains)
}

// odds prints a probability as people say it: 1 in so many.
func odds(p float64) string {
	if p <= 0 {
		return "less than 1 in 1e+300"
	}
	n := 1 / p
	if n < 10 {
		return fmt.Sprintf("1 in %.1f", n)
	}
	if n > 1e15 {
		return fmt.Sprintf("1 in %.0e", n)
	}
	digits := strconv.FormatInt(int64(math.Round(n)), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return "1 in " + digits
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
