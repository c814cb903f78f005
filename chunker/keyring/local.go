package keyring

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"

	"golang.org/x/crypto/argon2"

	"skep/chunker/record"
	"skep/chunker/secret"
)

// MaxLocal is the largest local key file, in bytes.
const MaxLocal = 1 << 10

const (
	localVersion = 1
	localMark    = "skep keys"
	localContext = "skep local key file v1"
)

var (
	// ErrLocked says that a key file needs a passphrase and none was given.
	ErrLocked = errors.New("key file needs its passphrase")
	// ErrPassphrase says that a key file does not open with this passphrase,
	// or was altered.
	ErrPassphrase = errors.New("wrong passphrase")
)

// Local is what a device keeps in its key file: all else comes back from the
// swarm.
type Local struct {
	_      struct{}   `cbor:",toarray"`
	Device secret.Key // seed of the device's own key, which never leaves it
	Root   secret.Key // root secret of the member; zero on a peer without a drive
}

// Signer is the device's private key, its identity in the swarm.
func (l Local) Signer() ed25519.PrivateKey { return l.Device.Signer() }

// Cost says how dear it is to try a passphrase, in the terms of Argon2id. The
// zero Cost stands for the second recommendation of RFC 9106: 3 passes over
// 64 MiB, 4 lanes.
type Cost struct {
	_      struct{} `cbor:",toarray"`
	Passes uint32
	Memory uint32 // KiB
	Lanes  uint8
}

// maxCost bounds what opening a file can demand.
var maxCost = Cost{Passes: 64, Memory: 1 << 20, Lanes: 64}

func (c Cost) orDefault() Cost {
	if c == (Cost{}) {
		return Cost{Passes: 3, Memory: 64 << 10, Lanes: 4}
	}
	return c
}

func (c Cost) valid() bool {
	return c.Passes >= 1 && c.Passes <= maxCost.Passes &&
		c.Lanes >= 1 && c.Lanes <= maxCost.Lanes &&
		c.Memory >= 8*uint32(c.Lanes) && c.Memory <= maxCost.Memory
}

// localFile is the form of the key file. Without a passphrase the cost is
// zero, the salt empty, and the body is the encoded Local.
type localFile struct {
	_       struct{} `cbor:",toarray"`
	Mark    string
	Version uint8
	Cost    Cost
	Salt    []byte
	Body    []byte
}

// EncodeLocal returns the bytes of the key file, sealed under the passphrase
// unless that is empty. It fails for a cost out of bounds only.
func EncodeLocal(l Local, passphrase []byte, cost Cost) ([]byte, error) {
	f := localFile{Mark: localMark, Version: localVersion, Body: record.Encode(l)}
	if len(passphrase) == 0 {
		return record.Encode(f), nil
	}
	f.Cost = cost.orDefault()
	if !f.Cost.valid() {
		return nil, fmt.Errorf("key file: cost %+v is out of bounds", f.Cost)
	}
	f.Salt = make([]byte, secret.Size)
	_, _ = rand.Read(f.Salt)
	f.Body = secret.Seal(f.key(passphrase), localContext, f.Body)
	return record.Encode(f), nil
}

// DecodeLocal reads a key file. It fails with ErrLocked, ErrPassphrase or
// record.ErrFormat. A passphrase given for a file that has none is not looked
// at. Opening a sealed file takes the time and memory that its cost says.
func DecodeLocal(b, passphrase []byte) (Local, error) {
	var f localFile
	if err := decodeExact(b, MaxLocal, &f); err != nil {
		return Local{}, fmt.Errorf("key file: %w", err)
	}
	if f.Mark != localMark || f.Version != localVersion {
		return Local{}, fmt.Errorf("key file: %w: not of version %d", record.ErrFormat, localVersion)
	}
	body := f.Body
	if f.Cost != (Cost{}) {
		if !f.Cost.valid() || len(f.Salt) != secret.Size {
			return Local{}, fmt.Errorf("key file: %w: cost out of bounds", record.ErrFormat)
		}
		if len(passphrase) == 0 {
			return Local{}, ErrLocked
		}
		var err error
		if body, err = secret.Open(f.key(passphrase), localContext, f.Body); err != nil {
			return Local{}, ErrPassphrase
		}
	}
	var l Local
	if err := decodeExact(body, MaxLocal, &l); err != nil {
		return Local{}, fmt.Errorf("key file: %w", err)
	}
	return l, nil
}

func (f *localFile) key(passphrase []byte) secret.Key {
	return secret.Key(argon2.IDKey(passphrase, f.Salt, f.Cost.Passes, f.Cost.Memory, f.Cost.Lanes, secret.Size))
}
