package group

import (
	"crypto/ed25519"
	"fmt"
	"slices"

	"skep/chunker/record"
)

// MaxRelease bounds an encoded release, in bytes.
const MaxRelease = 256

const releaseContext = "skep release v1"

// Release says that some of what a peer holds of a group is not wanted from it: it
// has no slot by any lease of a lower number. Where it was given a slot since, it has
// seen a lease of this number or a higher one, and the release says nothing to it.
// Of packs that it does not name it says nothing either: they may have come since its
// signer looked.
type Release struct {
	_       struct{} `cbor:",toarray"`
	Version uint8
	Group   ID
	Holder  PeerKey // whom it is for
	Number  uint64  // of a lease
	Packs   Bitmap  // whose shards are not wanted
}

// Sign returns the signed release. key must be the group's.
func (r Release) Sign(key ed25519.PrivateKey) []byte {
	r.Version, r.Group = version, IDOf(key)
	return record.Sign(key, releaseContext, r)
}

// ParseRelease decodes a release and checks it against the key of its group.
func ParseRelease(b []byte) (Release, error) {
	var r Release
	s, err := record.Parse(b, MaxRelease, &r)
	if err != nil {
		return Release{}, fmt.Errorf("release: %w", err)
	}
	if r.Version != version {
		return Release{}, fmt.Errorf("release: %w", ErrInvalid)
	}
	if err := s.Verify(r.Group[:], releaseContext); err != nil {
		return Release{}, err
	}
	return r, nil
}

// Releases reports whether a holder of the group, who is the one that r is for,
// is to give up what it holds of the packs.
func (h *Holding) Releases(r Release) bool { return h.Word != nil && h.Lease.Number < r.Number }

// MaxFormer is of how many former holders of a group the owner keeps account.
const MaxFormer = 32

// Former is a peer that has no slot of a group, and may hold shards of one.
type Former struct {
	_      struct{} `cbor:",toarray"`
	Holder PeerKey
	Slot   uint8
}

// Move gives a slot another holder. The one before becomes a former one.
func (g *Group) Move(slot int, to PeerKey) {
	was := g.Slots[slot]
	g.Slots[slot] = to
	g.Forget(to)
	g.Left(uint8(slot), was)
}

// Left notes that a peer may hold shards of a slot that is not its own. The slot may be
// that peer's word: one that the group does not have is not noted. Beyond MaxFormer, the
// ones that were noted first are forgotten: what they hold goes with their leases.
func (g *Group) Left(slot uint8, p PeerKey) {
	if p.IsZero() || int(slot) >= len(g.Slots) || slices.Contains(g.Slots, p) {
		return
	}
	g.Forget(p)
	g.Former = append(g.Former, Former{Holder: p, Slot: slot})
	if over := len(g.Former) - MaxFormer; over > 0 {
		g.Former = slices.Clone(g.Former[over:])
	}
}

// Forget notes that a former holder has nothing any more.
func (g *Group) Forget(p PeerKey) {
	g.Former = slices.DeleteFunc(slices.Clone(g.Former), func(f Former) bool { return f.Holder == p })
	if len(g.Former) == 0 {
		g.Former = nil
	}
}

// FormerValid reports whether the former holders are such as Move and Left note.
func (g *Group) FormerValid() bool {
	return len(g.Former) <= MaxFormer && !slices.ContainsFunc(g.Former, func(f Former) bool { return f.Slot >= g.Coding.N })
}
