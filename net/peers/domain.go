package peers

import (
	"cmp"
	"net/netip"
	"strings"

	"skep/net/place"
)

// Candidate is the peer as package place weighs it. load is how many slots of
// ours it holds.
func (p Peer) Candidate(load int) place.Candidate {
	return place.Candidate{
		Key:          p.Key,
		Free:         p.Free,
		Region:       p.Region,
		Domain:       p.Domains(),
		Availability: p.Availability,
		Load:         load,
	}
}

// Domains says what the peer fails together with: the household that it
// claims, the address group of the address that worked last, and the country
// that it claims. Its network operator is not known. All peers at no address that
// is known are in one group: they may be one machine, whatever they claim.
func (p Peer) Domains() place.Domain {
	country, _, _ := strings.Cut(p.Region, "-")
	return place.Domain{
		place.Household:    p.Domain,
		place.AddressGroup: cmp.Or(addressGroup(p.Addrs), "unknown"),
		place.Country:      country,
	}
}

// addressGroup is the network of the first address that is the peer's own: 24
// bits of an IPv4 address, 48 of an IPv6 address, which is what one customer
// gets; all loopback addresses are one group. It is empty where there is no
// such address.
func addressGroup(addrs []string) string {
	for _, a := range addrs {
		if strings.Contains(a, "/p2p-circuit") {
			continue // the address of a relay
		}
		if g := groupOf(a); g != "" {
			return g
		}
	}
	return ""
}

func groupOf(addr string) string {
	parts := strings.SplitN(addr, "/", 4)
	if len(parts) < 3 || (parts[1] != "ip4" && parts[1] != "ip6") {
		return ""
	}
	ip, err := netip.ParseAddr(parts[2])
	if err != nil {
		return ""
	}
	ip = ip.Unmap().WithZone("")
	bits := 48
	switch {
	case ip.IsLoopback():
		return "loopback"
	case ip.Is4():
		bits = 24
	}
	network, err := ip.Prefix(bits)
	if err != nil {
		return ""
	}
	return network.String()
}
