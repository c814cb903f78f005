package keyring

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"

	"skep/chunker/group"
	"skep/chunker/record"
	"skep/chunker/secret"
)

// MaxName is the longest name of a drive, in bytes.
const MaxName = 255

const keyringVersion = 1

// ErrInvalid says that a keyring, or what was to be put into one, contradicts
// itself, such as a drive without an epoch.
var ErrInvalid = errors.New("invalid keyring")

// DriveID names a drive. It is random.
type DriveID [16]byte

// String is the id in hexadecimal.
func (id DriveID) String() string { return fmt.Sprintf("%x", id[:]) }

// Epoch is a time of a drive during which one set of members and devices may
// read it.
type Epoch struct {
	_           struct{} `cbor:",toarray"`
	Number      uint32
	Read        secret.Key // opens heads
	Convergence secret.Key // keys the hash that gives a block its key
}

// Drive is what its members know of a drive: with it they find and read all
// that is in it.
type Drive struct {
	_       struct{} `cbor:",toarray"`
	ID      DriveID
	Name    string
	NameKey secret.Key // keys the hash of names in sharded directories
	Epochs  []Epoch    // at least one, newest last
}

// NewDrive returns a new drive in its first epoch, with random secrets.
func NewDrive(name string) Drive {
	d := Drive{Name: name, NameKey: secret.New()}
	_, _ = rand.Read(d.ID[:])
	return d.NextEpoch()
}

// Newest is the epoch under which new things are written. d must be a drive
// that NewDrive or a keyring gave.
func (d Drive) Newest() Epoch { return d.Epochs[len(d.Epochs)-1] }

// NextEpoch returns d with a new epoch of random secrets. d is not changed.
func (d Drive) NextEpoch() Drive {
	e := Epoch{Number: 1, Read: secret.New(), Convergence: secret.New()}
	if len(d.Epochs) > 0 {
		e.Number = d.Newest().Number + 1
	}
	d.Epochs = append(slices.Clip(d.Epochs), e)
	return d
}

func (d Drive) valid() error {
	if len(d.Name) > MaxName {
		return fmt.Errorf("%w: drive %v has a name of %d bytes", ErrInvalid, d.ID, len(d.Name))
	}
	if len(d.Epochs) == 0 {
		return fmt.Errorf("%w: drive %v has no epoch", ErrInvalid, d.ID)
	}
	for i, e := range d.Epochs {
		if i > 0 && e.order() <= d.Epochs[i-1].order() {
			return fmt.Errorf("%w: epochs of drive %v are out of order", ErrInvalid, d.ID)
		}
	}
	return nil
}

// order sorts epochs. Two devices can begin an epoch of one number at once;
// then both are kept, so that what either wrote stays readable.
func (e Epoch) order() string { return fmt.Sprintf("%010d", e.Number) + string(e.Read[:]) }

// Received is a drive of somebody else to whose members we belong.
type Received struct {
	_     struct{}      `cbor:",toarray"`
	From  group.PeerKey // member key of the drive's owner
	Drive Drive
}

// OldRoot is a root secret that was replaced. What it signed is still there:
// groups to be leased on, heads to be read once more.
type OldRoot struct {
	_        struct{} `cbor:",toarray"`
	Root     secret.Key
	Replaced int64 // Unix seconds
}

// Keyring is all that a member must know beside the root secret. It is a
// value: functions here return changed copies.
type Keyring struct {
	_        struct{} `cbor:",toarray"`
	Version  uint8    // set by SealKeyring
	Number   uint64   // grows by one with each change
	Drives   []Drive
	Devices  []Certificate // of the devices that may write
	Received []Received
	Old      []OldRoot // oldest first
	Taken    []uint32  // prefixes of devices that are not named any more, in order
}

// Drive returns the drive of this id, the member's own or a received one.
func (k Keyring) Drive(id DriveID) (Drive, bool) {
	for _, d := range k.Drives {
		if d.ID == id {
			return d, true
		}
	}
	for _, r := range k.Received {
		if r.Drive.ID == id {
			return r.Drive, true
		}
	}
	return Drive{}, false
}

// WithDrive returns k with d put in, or in place of the drive with its id.
func (k Keyring) WithDrive(d Drive) Keyring {
	k.Drives = slices.Clone(k.Drives)
	for i := range k.Drives {
		if k.Drives[i].ID == d.ID {
			k.Drives[i] = d
			return k
		}
	}
	k.Drives = append(k.Drives, d)
	return k
}

// Known returns the devices whose certificates the member key of root signed,
// in the order of the keyring. Certificates that do not verify are left out.
func (k Keyring) Known(root secret.Key) []Device {
	member := MemberOf(root)
	var out []Device
	for _, c := range k.Devices {
		if d, err := c.Device(member); err == nil {
			out = append(out, d)
		}
	}
	return out
}

// FreePrefix returns a random device prefix that no device of the keyring has or
// had, whoever certified it. Random, so that two devices that are added at the
// same time do not both take the next one. Of prefixes that were taken, the smallest
// are forgotten at length: none is given then that is smaller than those known.
func (k Keyring) FreePrefix() uint32 {
	taken, least := map[uint32]bool{0: true}, uint32(0)
	for _, p := range k.Taken {
		taken[p] = true
	}
	if len(k.Taken) >= MaxTaken {
		least = k.Taken[0]
	}
	for _, c := range k.Devices {
		if d, err := c.parse(); err == nil {
			taken[d.Prefix] = true
		}
	}
	for tries := 0; ; tries++ {
		var b [4]byte
		_, _ = rand.Read(b[:])
		p := (uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])) & MaxPrefix
		if !taken[p] && (p > least || tries > mostTries) {
			return p
		}
	}
}

// mostTries is how often a prefix is drawn that is larger than all that are forgotten.
const mostTries = 1 << 16

// GroupKey returns the private key of the group with this id and nonce, which
// descends from root or from one of the roots before it. It reports false for
// a group that is not the member's.
func (k Keyring) GroupKey(root secret.Key, id group.ID, nonce [16]byte) (ed25519.PrivateKey, bool) {
	for _, r := range k.Roots(root) {
		if key := group.KeyOf(r, nonce); group.IDOf(key) == id {
			return key, true
		}
	}
	return nil, false
}

// Roots returns root and those that it replaced, newest first.
func (k Keyring) Roots(root secret.Key) []secret.Key {
	out := []secret.Key{root}
	for _, o := range slices.Backward(k.Old) {
		out = append(out, o.Root)
	}
	return out
}

// Renew returns the first keyring of a new root: it holds the old root, every
// drive of the member's own in a new epoch, and the certificates of the
// devices that remain, signed anew. It is how words are replaced and a device
// is removed. now is in Unix seconds.
func (k Keyring) Renew(old, root secret.Key, remain []group.PeerKey, now int64) Keyring {
	next := Keyring{
		Number:   1,
		Received: slices.Clone(k.Received),
		Old:      append(slices.Clone(k.Old), OldRoot{Root: old, Replaced: now}),
		Taken:    slices.Clone(k.Taken),
	}
	for _, d := range k.Drives {
		next.Drives = append(next.Drives, d.NextEpoch())
	}
	for _, d := range k.Known(old) {
		if slices.Contains(remain, d.Key) {
			next = next.WithDevice(Certify(root, d))
		} else {
			next.Taken = joinTaken(next.Taken, []uint32{d.Prefix})
		}
	}
	return next
}

// Merge joins two keyrings of one root that were changed at the same time
// under one number: the result has every drive, epoch, certificate, received
// secret and old root of both, in an order that does not depend on which came
// first; of the certificates, the last MaxDevices. Where both name a drive differently, the greater name wins.
func Merge(a, b Keyring) Keyring {
	m := Keyring{Version: keyringVersion, Number: max(a.Number, b.Number)}
	m.Drives = union(a.Drives, b.Drives, func(d Drive) string { return string(d.ID[:]) }, mergeDrive)
	m.Devices, m.Taken = mergeDevices(a, b)
	m.Received = union(a.Received, b.Received,
		func(r Received) string { return string(r.From[:]) + string(r.Drive.ID[:]) },
		func(x, y Received) Received { return Received{From: x.From, Drive: mergeDrive(x.Drive, y.Drive)} })
	m.Old = union(a.Old, b.Old, func(o OldRoot) string { return string(o.Root[:]) }, first)
	slices.SortStableFunc(m.Old, func(x, y OldRoot) int { return cmp.Compare(x.Replaced, y.Replaced) })
	return m
}

// Join returns a keyring with all that either has: a, if it lacks nothing of b; else
// b, likewise; else a new one under the next number. So whoever writes what Join
// gives takes nothing away, and all who do come to the same.
func Join(a, b Keyring) Keyring {
	switch {
	case a.Number >= b.Number && a.Has(b):
		return a
	case b.Number >= a.Number && b.Has(a):
		return b
	}
	m := Merge(a, b)
	m.Number++
	return m
}

// Has reports whether k lacks nothing of o.
func (k Keyring) Has(o Keyring) bool {
	own, both := Merge(k, k), Merge(k, o)
	own.Number, both.Number = 0, 0
	return bytes.Equal(record.Encode(own), record.Encode(both))
}

func first[T any](a, _ T) T { return a }

// mergeDrive joins two states of one drive.
func mergeDrive(a, b Drive) Drive {
	if b.Name > a.Name {
		a.Name = b.Name
	}
	if bytes.Compare(b.NameKey[:], a.NameKey[:]) > 0 {
		a.NameKey = b.NameKey
	}
	a.Epochs = union(a.Epochs, b.Epochs, Epoch.order, first)
	return a
}

// union joins two lists by key, in the order of the keys.
func union[T any](a, b []T, key func(T) string, join func(a, b T) T) []T {
	all := map[string]T{}
	for _, v := range slices.Concat(a, b) {
		if was, ok := all[key(v)]; ok {
			v = join(was, v)
		}
		all[key(v)] = v
	}
	var out []T
	for _, k := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[k])
	}
	return out
}

func (k Keyring) valid() error {
	if k.Number == 0 {
		return fmt.Errorf("%w: it has no number", ErrInvalid)
	}
	if !slices.IsSorted(k.Taken) {
		return fmt.Errorf("%w: prefixes out of order", ErrInvalid)
	}
	seen := map[DriveID]bool{}
	for _, d := range k.Drives {
		if err := d.valid(); err != nil {
			return err
		}
		if seen[d.ID] {
			return fmt.Errorf("%w: drive %v is in it twice", ErrInvalid, d.ID)
		}
		seen[d.ID] = true
	}
	for _, r := range k.Received {
		if err := r.Drive.valid(); err != nil {
			return err
		}
	}
	return nil
}

// encode returns the plaintext of the keyring record.
func (k Keyring) encode() ([]byte, error) {
	k.Version = keyringVersion
	if err := k.valid(); err != nil {
		return nil, err
	}
	return record.Encode(k), nil
}

// decodeKeyring is the inverse of encode.
func decodeKeyring(b []byte) (Keyring, error) {
	var k Keyring
	if err := decodeExact(b, MaxValue, &k); err != nil {
		return Keyring{}, fmt.Errorf("keyring: %w", err)
	}
	if k.Version != keyringVersion {
		return Keyring{}, fmt.Errorf("%w: version %d", ErrInvalid, k.Version)
	}
	if err := k.valid(); err != nil {
		return Keyring{}, err
	}
	return k, nil
}

// decodeExact decodes b into v and accepts only the bytes that v encodes to,
// so that, for one, a key cannot come back shorter than it was.
func decodeExact(b []byte, limit int, v any) error {
	if err := record.Decode(b, limit, v); err != nil {
		return err
	}
	if !bytes.Equal(record.Encode(v), b) {
		return fmt.Errorf("%w: not in its own form", record.ErrFormat)
	}
	return nil
}
