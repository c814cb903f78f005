package daemon

import (
	"context"
	"errors"
	"time"

	"skep/chunker/keyring"
	"skep/chunker/secret"
	"skep/net/swarm"
)

// readRing reads the keyring that keepers have, and tells what was found of it. seen is
// the highest number that was seen before.
func (n *network) readRing(ctx context.Context, root secret.Key, seen uint64) (ring keyring.Keyring, found swarm.Found, err error) {
	found = n.records.Get(ctx, slotKeys(keyring.KeyringSlots(root)))
	ring, err = keyring.OpenKeyring(root, found.Words(), seen)
	return ring, found, err
}

// ringTries is how often a keyring is written that others write at the same time.
const ringTries = 5

var errRingWritten = errors.New("several devices are writing the keyring at once")

// shareRing brings a keyring to keepers that has all that this one has and all that
// theirs has, and returns it. So whoever writes it last takes nothing away that
// another device has put in.
func (n *network) shareRing(ctx context.Context, root secret.Key, ring keyring.Keyring) (keyring.Keyring, error) {
	for range ringTries {
		found, _, err := n.readRing(ctx, root, 0)
		if err == nil {
			ring = keyring.Join(found, ring)
		} else if !errors.Is(err, keyring.ErrAbsent) {
			return ring, err
		}
		sealed, err := keyring.SealKeyring(root, ring, time.Now().Add(headTime).Unix())
		if err != nil {
			return ring, err
		}
		instead, err := n.records.Put(ctx, sealed)
		if err != nil {
			return ring, err
		}
		all, joined, err := joinKept(root, ring, instead)
		if err != nil || all {
			return joined, err
		}
		ring = joined
	}
	return ring, errRingWritten
}

// joinKept joins a keyring with those that keepers have instead of it. All says that
// nothing of it is missing in any of them; else the result is one to be kept in place
// of them: what is kept under a number stays.
func joinKept(root secret.Key, ring keyring.Keyring, instead [][]byte) (all bool, joined keyring.Keyring, err error) {
	all, joined = true, ring
	var highest uint64
	for _, word := range instead {
		other, err := keyring.OpenKeyring(root, [][]byte{word}, 0)
		if err != nil {
			return false, ring, err
		}
		all = all && other.Has(ring)
		joined, highest = keyring.Join(other, joined), max(highest, other.Number)
	}
	if !all {
		joined.Number = max(joined.Number, highest+1)
	}
	return all, joined, nil
}
