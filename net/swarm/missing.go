package swarm

import "context"

// cut is the end of a gathering whose context has ended.
func (g *gathering) cut(ctx context.Context) error {
	if !gaveUp(ctx) {
		return ctx.Err()
	}
	g.last = context.Cause(ctx)
	e := g.counts()
	e.Kind = ErrUnreachable // not everybody was asked
	return e
}

// missing says what is missing after everybody was asked.
func (g *gathering) missing(around *around) error {
	if len(g.known) == 0 {
		return around.none()
	}
	e := g.counts()
	if e.Of-e.Lost+g.silent < e.Needed {
		e.Kind = ErrLost
	}
	return e
}

// counts counts what is missing.
func (g *gathering) counts() *MissingError {
	e := &MissingError{Kind: ErrUnreachable, Needed: int(g.m.Coding.K), Of: int(g.m.Coding.N),
		Answered: len(g.have), Lost: g.lost(), Err: orNone(g.last)}
	e.Unreachable = e.Of - e.Answered - e.Lost
	return e
}

// lost is how many slots have holders, and none that may have their shard.
func (g *gathering) lost() (n int) {
	asked, no := map[uint8]int{}, map[uint8]int{}
	for src := range g.known {
		asked[src.slot]++
	}
	for src := range g.no {
		no[src.slot]++
	}
	for slot, of := range asked {
		if _, ok := g.have[slot]; !ok && no[slot] == of {
			n++
		}
	}
	return n
}
