package cli

import (
	"fmt"
	"regexp"
	"time"

	"github.com/multiformats/go-multiaddr"
	"github.com/spf13/cobra"

	"skep/cmd/skep/home"
	skephost "skep/net/host"
)

// defaultOffer is how much of the disk a home gives to others unless told
// otherwise.
const defaultOffer = 10 << 30

// peerFlags are the settings of a home that can be given when it is made.
type peerFlags struct {
	listen, bootstrap []string
	offer             sizeFlag
	region, domain    string
	deadAfter         time.Duration
}

func (p *peerFlags) add(cmd *cobra.Command) {
	p.offer = defaultOffer
	f := cmd.Flags()
	f.StringArrayVar(&p.bootstrap, "bootstrap", nil, "full address of a peer to join the swarm by (/ip4/…/p2p/…); can be repeated")
	f.StringArrayVar(&p.listen, "listen", nil, "address to listen on, such as /ip4/0.0.0.0/tcp/4001; can be repeated (default all, on a port that stays the same)")
	f.Var(&p.offer, "offer", "how much of this disk others may use, at most half of what is free unless given")
	f.StringVar(&p.region, "region", "", "where this computer is: country (ISO 3166), subdivision, zone, such as DE-BE")
	f.StringVar(&p.domain, "domain", "", "what this computer fails together with, such as a household's name")
	f.DurationVar(&p.deadAfter, "dead-after", 0, "after how long of silence a peer counts as gone (default 72h)")
}

// fit makes the offer no more than half of what is free on the disk of a home,
// unless it was given.
func (p *peerFlags) fit(cmd *cobra.Command, h home.Dir) {
	if free, err := h.Free(); err == nil && !cmd.Flags().Changed("offer") {
		p.offer = min(p.offer, sizeFlag(free/2))
	}
}

var regionForm = regexp.MustCompile(`^[A-Z]{2}(-[A-Z0-9]{1,3}(/[^/]+)?)?$`)

// settings checks the flags and returns them as settings.
func (p *peerFlags) settings() (home.Settings, error) {
	if p.region != "" && !regionForm.MatchString(p.region) {
		return home.Settings{}, usageError{fmt.Errorf("region %q: write it as DE, DE-BE or DE-BE/zone", p.region)}
	}
	if p.deadAfter < 0 || p.deadAfter > 0 && p.deadAfter < time.Second {
		return home.Settings{}, usageError{fmt.Errorf("--dead-after %v: at least a second", p.deadAfter)}
	}
	if _, err := skephost.ParseAddrs(p.bootstrap); err != nil {
		return home.Settings{}, usageError{fmt.Errorf("--bootstrap: %w", err)}
	}
	for _, l := range p.listen {
		if _, err := multiaddr.NewMultiaddr(l); err != nil {
			return home.Settings{}, usageError{fmt.Errorf("--listen %q: %w; write it as /ip4/0.0.0.0/tcp/4001", l, err)}
		}
	}
	return home.Settings{Listen: p.listen, Bootstrap: p.bootstrap, Offer: int64(p.offer), Region: p.region,
		Domain: p.domain, DeadAfter: home.Duration(p.deadAfter)}, nil
}
