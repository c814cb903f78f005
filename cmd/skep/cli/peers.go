package cli

import (
	"cmp"
	"slices"

	"skep/cmd/skep/control"
	"skep/cmd/skep/say"
)

// mostHolders is how many holders are told one by one.
const mostHolders = 24

// answering is how many peers are thought to be there.
func answering(all []control.Peer) int { return inState(all, "alive") }

func inState(all []control.Peer, state string) (n int) {
	for _, p := range all {
		if p.State == state {
			n++
		}
	}
	return n
}

// printPeers tells how many peers are there, and what each holds of the drive.
func printPeers(line func(string, string, ...any), s control.Status) {
	all := s.Peers
	alive := answering(all)
	joining := ""
	if s.Joining {
		joining = " so far; it is being joined"
	}
	if len(all) == 0 && !s.Joining && s.Drive != "" {
		line("Swarm", "no peer is known; give the address of one: skep mount --bootstrap ADDRESS DIR")
		return
	}
	line("Swarm", "%d of %s %s%s", alive, say.Count(len(all), "known peer"), say.If(alive, "answers", "answer"), joining)
	if n := inState(all, "unknown"); n > 0 {
		line("", "%d of them %s not been heard of since the daemon started", n, say.If(n, "has", "have"))
	}
	for _, p := range all {
		if p.Lies > 0 {
			line("", "%s sent what cannot be true, %s", p.ID, say.Times(p.Lies))
		}
	}
	printHolders(line, all)
}

// printHolders tells what each peer holds of the drive, the one with most first.
func printHolders(line func(string, string, ...any), all []control.Peer) {
	shards := 0
	var holders []control.Peer
	for _, p := range all {
		if p.Shards > 0 {
			holders = append(holders, p)
			shards += p.Shards
		}
	}
	slices.SortStableFunc(holders, func(a, b control.Peer) int { return cmp.Compare(b.Shards, a.Shards) })
	name := "Holders"
	for _, p := range holders[:min(len(holders), mostHolders)] {
		line(name, "%s  %2d %%  %-9s  %s", p.ID, (100*p.Shards+shards/2)/shards, say.Count(p.Shards, "shard"), how(p))
		name = ""
	}
	if more := len(holders) - mostHolders; more > 0 {
		line("", "and %s with less (skep status --json)", say.Count(more, "peer"))
	}
}

// how says how a peer is, and where.
func how(p control.Peer) string {
	if p.Region == "" {
		return p.State
	}
	return p.State + ", " + p.Region
}
