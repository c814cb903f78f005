package keyring

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"

	"skep/chunker/group"
	"skep/chunker/record"
	"skep/chunker/secret"
)

// MaxPrefix is the largest device prefix. An inode number is its device's
// prefix and a counter of 40 bits; it stays positive as a signed number.
const MaxPrefix = 1<<23 - 1

// MaxDeviceName is the longest name of a device, in bytes: as long as a computer's may be.
// So there is room for MaxDevices, however they are called.
const MaxDeviceName = 64

// MaxCertificate is the largest encoded certificate, in bytes.
const MaxCertificate = 512

const (
	certificateVersion = 1
	certificateContext = "skep device certificate v1"
	memberContext      = "skep member key v1"
)

// ErrCertificate says that a certificate is not one of the member's.
var ErrCertificate = errors.New("not a certificate of this member")

// MemberKey derives the key that certifies a member's devices from the root
// secret.
func MemberKey(root secret.Key) ed25519.PrivateKey {
	return secret.Derive(root, memberContext).Signer()
}

// MemberOf is the public half of MemberKey: the member's identity towards
// other members.
func MemberOf(root secret.Key) group.PeerKey {
	return group.PeerKey(MemberKey(root).Public().(ed25519.PublicKey))
}

// Device is one key pair on one machine, as its member certifies it.
type Device struct {
	_       struct{}      `cbor:",toarray"`
	Version uint8         // set by Certify
	Member  group.PeerKey // set by Certify
	Key     group.PeerKey // the device's public key
	Prefix  uint32        // of the inode numbers that it gives, 1 … MaxPrefix
	Name    string
	Created int64 // Unix seconds
}

// Certificate is a signed Device.
type Certificate []byte

// Certify returns the certificate of d, signed by the member key of root. The
// prefix must be 1 … MaxPrefix; a name is cut to MaxDeviceName bytes.
func Certify(root secret.Key, d Device) Certificate {
	if d.Prefix == 0 || d.Prefix > MaxPrefix {
		panic(fmt.Sprintf("BUG: keyring: device prefix %d", d.Prefix))
	}
	d.Version, d.Member = certificateVersion, MemberOf(root)
	d.Name = strings.ToValidUTF8(d.Name[:min(len(d.Name), MaxDeviceName)], "")
	return record.Sign(MemberKey(root), certificateContext, d)
}

// Device decodes the certificate and checks that this member signed it. It
// fails with ErrCertificate or record.ErrFormat.
func (c Certificate) Device(member group.PeerKey) (Device, error) {
	d, err := c.parse()
	if err != nil {
		return Device{}, err
	}
	if d.Member != member {
		return Device{}, fmt.Errorf("%w: device %v", ErrCertificate, d.Key)
	}
	return d, nil
}

// parse decodes the certificate and checks it against the member it names.
func (c Certificate) parse() (Device, error) {
	var d Device
	s, err := record.Parse(c, MaxCertificate, &d)
	if err != nil {
		return Device{}, fmt.Errorf("certificate: %w", err)
	}
	if d.Version != certificateVersion || d.Prefix == 0 || d.Prefix > MaxPrefix || len(d.Name) > MaxDeviceName {
		return Device{}, fmt.Errorf("%w: device %v", ErrCertificate, d.Key)
	}
	if err := s.Verify(d.Member[:], certificateContext); err != nil {
		return Device{}, fmt.Errorf("%w: device %v: %w", ErrCertificate, d.Key, err)
	}
	return d, nil
}
