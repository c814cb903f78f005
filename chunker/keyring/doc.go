// Package keyring holds a member's keys: how each descends from the recovery
// words, and the three sealed records through which they come back.
//
//	words ─► recovery key ─► recovery slots 0 … 4: signing key, sealing key
//	                             └─ recovery record: the root secret (random)
//	root secret ─► member key: signs device certificates
//	            ├► keyring slots 0 … 4: signing key, sealing key
//	            │      └─ keyring record: drives with their epochs, certificates,
//	            │         secrets from others, roots of before
//	            ├► head slots 0 … 4 of each drive and device: signing key
//	            └► group keys (group.KeyOf)
//	epoch ─► read secret ─► sealing key of each head slot
//	     └─► convergence secret: keys of blocks (package block)
//	device key: random, never leaves its device
//
// The root and the secrets of epochs are random, not derived: new words, or a
// device removed, make a new root whose keyring holds the old ones, and new
// epochs, so that nothing written from then on can be opened with what was
// known before (Renew). Read secrets open and never sign; what signs a head
// descends from the root of the member who writes.
//
// A record lies in five slots (Slots). Each slot has a signing key of its own
// and the value sealed for it, padded to one of a few sizes, so that keepers
// cannot tell that two slots hold one record. A reader asks many keepers and
// takes what Open… returns: the highest number that opens.
//
// Everything here is a pure function of its inputs, but for the random bytes
// of new secrets and salts. The formats are in docs/keys.md.
package keyring
