package keyring

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"skep/chunker/group"
	"skep/chunker/secret"
)

// MaxDevices is how many devices a keyring names: those that were certified last.
const MaxDevices = 32

// MaxTaken is how many prefixes of devices that it does not name any more a keyring
// has: the largest.
const MaxTaken = 1024

// WithDevice returns k with a device's certificate added, in place of an older one that
// the device has, or if there are MaxDevices of the one that was certified first.
func (k Keyring) WithDevice(c Certificate) Keyring {
	k.Devices = append(slices.Clip(k.Devices), c)
	kept, gone := lastCertified(k.Devices)
	if len(kept) < len(k.Devices) {
		k.Devices, k.Taken = kept, joinTaken(k.Taken, gone)
	}
	return k
}

// Full reports whether the next device takes the place of another one.
func (k Keyring) Full() bool { return len(k.Devices) >= MaxDevices }

// NextCreated is when a device that is certified at some time is said to be, so that k
// with it names it, by this certificate: that time, or if clocks do not agree one that is
// later than in the certificate that it has, and if k is full than in all others.
func (k Keyring) NextCreated(device group.PeerKey, now int64) int64 {
	for _, c := range k.Devices {
		if d, err := c.parse(); err == nil && (k.Full() || d.Key == device) {
			now = max(now, d.Created+1)
		}
	}
	return now
}

// Certified returns k with a device that it names certified anew by the member of root,
// so that others give way to new ones before it does.
func (k Keyring) Certified(root secret.Key, device group.PeerKey, created int64) Keyring {
	for _, d := range k.Known(root) {
		if d.Key == device {
			d.Created = created
			return k.WithDevice(Certify(root, d))
		}
	}
	return k
}

// Names reports whether k has a certificate of a device, signed by the member of root.
func (k Keyring) Names(root secret.Key, device group.PeerKey) bool {
	return slices.ContainsFunc(k.Known(root), func(d Device) bool { return d.Key == device })
}

// mergeDevices joins the devices of two keyrings, and the prefixes of those that are not
// named any more. What it gives does not depend on which came first, nor on what was
// joined before.
func mergeDevices(a, b Keyring) (devices []Certificate, taken []uint32) {
	devices, gone := lastCertified(slices.Concat(a.Devices, b.Devices))
	return devices, joinTaken(joinTaken(a.Taken, b.Taken), gone)
}

// lastCertified returns of each device the certificate that was made last, and of more
// than MaxDevices those made last, sorted; and the prefixes in all others.
func lastCertified(all []Certificate) (kept []Certificate, gone []uint32) {
	type certified struct {
		c Certificate
		d Device
	}
	var sorted []certified
	for _, c := range all {
		d, err := c.parse()
		if err != nil {
			d = Device{Created: math.MinInt64}
		}
		sorted = append(sorted, certified{c, d})
	}
	slices.SortFunc(sorted, func(x, y certified) int {
		return cmp.Or(cmp.Compare(y.d.Created, x.d.Created), bytes.Compare(y.c, x.c))
	})
	seen := map[string]bool{}
	for _, s := range sorted {
		n := string(s.d.Member[:]) + string(s.d.Key[:])
		if s.d.Prefix == 0 { // it does not verify
			n = string(s.c)
		}
		switch {
		case !seen[n] && len(kept) < MaxDevices:
			kept = append(kept, s.c)
		case s.d.Prefix != 0 && !bytes.Equal(s.c, kept[len(kept)-1]):
			gone = append(gone, s.d.Prefix)
		}
		seen[n] = true
	}
	slices.SortFunc(kept, func(x, y Certificate) int { return bytes.Compare(x, y) })
	return kept, gone
}

// joinTaken joins two lists of prefixes: in order, the largest MaxTaken.
func joinTaken(a, b []uint32) []uint32 {
	all := slices.Concat(a, b)
	slices.Sort(all)
	all = slices.Compact(all)
	return all[max(0, len(all)-MaxTaken):]
}
