package keyring

import (
	"crypto/ed25519"
	"fmt"

	"skep/chunker/group"
	"skep/chunker/record"
	"skep/chunker/secret"
)

const (
	recoverySlotContext = "skep recovery slot v1"
	recoverySealContext = "skep recovery sealing v1"
	recoveryRecord      = "skep recovery record v1"
	keyringSlotContext  = "skep keyring slot v1"
	keyringSealContext  = "skep keyring sealing v1"
	keyringRecord       = "skep keyring record v1"
	headSlotContext     = "skep head slot v1"
	headSealContext     = "skep head sealing v1"
	headRecord          = "skep head record v1"
)

const recoveryVersion = 1

// RecoverySlots are the slots of the recovery record of a recovery key, which
// the words give.
func RecoverySlots(recovery secret.Key) []Slot {
	return ownSlots(recovery, recoverySlotContext, recoverySealContext, recoveryRecord)
}

// KeyringSlots are the slots of the keyring record of a root secret.
func KeyringSlots(root secret.Key) []Slot {
	return ownSlots(root, keyringSlotContext, keyringSealContext, keyringRecord)
}

func ownSlots(from secret.Key, slot, seal, context string) []Slot {
	out := make([]Slot, Slots)
	for i := range out {
		n := []byte{byte(i)}
		out[i] = newSlot(secret.Derive(from, slot, n).Signer(), secret.Derive(from, seal, n), context)
	}
	return out
}

// HeadSlots are the slots of the head that a device of root's member writes
// for a drive, sealed for the readers of an epoch.
func HeadSlots(root secret.Key, drive DriveID, device group.PeerKey, e Epoch) []Slot {
	out := make([]Slot, Slots)
	for i := range out {
		signer := secret.Derive(root, headSlotContext, drive[:], device[:], []byte{byte(i)}).Signer()
		out[i] = newSlot(signer, headSeal(e.Read, signer.Public().(ed25519.PublicKey)), headRecord)
	}
	return out
}

func headSeal(read secret.Key, public ed25519.PublicKey) secret.Key {
	return secret.Derive(read, headSealContext, public)
}

// Recovery is what the recovery record holds.
type Recovery struct {
	_       struct{} `cbor:",toarray"`
	Version uint8    // set by SealRecovery
	Root    secret.Key
	Created int64 // Unix seconds
}

// SealRecovery returns the recovery record for each of RecoverySlots. What it
// says never changes; it is signed again, under the next number, only to keep
// it longer. until is in Unix seconds.
func SealRecovery(recovery secret.Key, r Recovery, number uint64, until int64) ([][]byte, error) {
	r.Version = recoveryVersion
	return sealAll(RecoverySlots(recovery), number, until, record.Encode(r))
}

// OpenRecovery returns what the recovery record holds, and its number, from
// the candidates that keepers gave. It fails with ErrAbsent, ErrJump, or
// ErrInvalid.
func OpenRecovery(recovery secret.Key, candidates [][]byte) (Recovery, uint64, error) {
	o, err := openAll(RecoverySlots(recovery), candidates, 0)
	if err != nil {
		return Recovery{}, 0, fmt.Errorf("recovery record: %w", err)
	}
	var r Recovery
	if err := decodeExact(o.Values[0], MaxValue, &r); err != nil {
		return Recovery{}, 0, fmt.Errorf("recovery record: %w", err)
	}
	if r.Version != recoveryVersion {
		return Recovery{}, 0, fmt.Errorf("recovery record: %w: version %d", ErrInvalid, r.Version)
	}
	return r, o.Number, nil
}

// SealKeyring returns the keyring record for each of KeyringSlots, under the
// keyring's own number. It fails with ErrTooLarge or ErrInvalid. until is in
// Unix seconds.
func SealKeyring(root secret.Key, k Keyring, until int64) ([][]byte, error) {
	b, err := k.encode()
	if err != nil {
		return nil, err
	}
	out, err := sealAll(KeyringSlots(root), k.Number, until, b)
	if err != nil {
		return nil, fmt.Errorf("keyring of %d drives and %d devices: %w", len(k.Drives)+len(k.Received), len(k.Devices), err)
	}
	return out, nil
}

// OpenKeyring returns the newest keyring among the candidates that keepers
// gave. seen is the highest number seen before, 0 on a bare machine; lower
// ones are refused. Keyrings that two devices wrote under one number are
// merged. It fails with ErrAbsent, ErrStale, ErrJump or ErrInvalid.
func OpenKeyring(root secret.Key, candidates [][]byte, seen uint64) (Keyring, error) {
	o, err := openAll(KeyringSlots(root), candidates, seen)
	if err != nil {
		return Keyring{}, fmt.Errorf("keyring: %w", err)
	}
	var all Keyring
	for i, v := range o.Values {
		k, err := decodeKeyring(v)
		if err != nil {
			return Keyring{}, err
		}
		if k.Number != o.Number {
			return Keyring{}, fmt.Errorf("%w: number %d in a record numbered %d", ErrInvalid, k.Number, o.Number)
		}
		if i == 0 {
			all = k
			continue
		}
		all = Merge(all, k)
	}
	return all, nil
}

// Head is a head record as it was found. What its value says, package commit
// knows.
type Head struct {
	Number uint64
	Until  int64 // Unix seconds
	Value  []byte
}

// SealHead returns the head record for each of the slots, which HeadSlots
// gave. The value has at most MaxValue bytes, or ErrTooLarge. until is in Unix
// seconds.
func SealHead(slots []Slot, number uint64, until int64, value []byte) ([][]byte, error) {
	out, err := sealAll(slots, number, until, value)
	if err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	return out, nil
}

// OpenHead returns the newest head among the candidates that keepers gave, for
// slots from HeadSlots. seen is the highest number seen before;
// lower ones are refused. It fails with ErrAbsent, ErrStale or ErrJump. Of
// several values with one number, which only a restored device can have
// written, every reader takes the same.
func OpenHead(slots []Slot, candidates [][]byte, seen uint64) (Head, error) {
	o, err := openAll(slots, candidates, seen)
	if err != nil {
		return Head{}, fmt.Errorf("head: %w", err)
	}
	return Head{Number: o.Number, Until: o.Until, Value: o.Values[len(o.Values)-1]}, nil
}
