package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Size is the length of every key and of every salt, in bytes.
const Size = 32

// Overhead is how many bytes Seal adds: the salt and the GCM tag.
const Overhead = Size + 16

// ErrOpen says that a sealed message was not sealed under this key and
// context, or was altered since.
var ErrOpen = errors.New("sealed message does not open with this key")

// Key is a secret of 32 bytes. It never prints itself.
type Key [Size]byte

// String hides the key, so that it cannot reach a log by accident.
func (Key) String() string { return "secret.Key(…)" }

// GoString hides the key from %#v.
func (k Key) GoString() string { return k.String() }

// Format hides the key from every formatting verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// MarshalText hides the key from JSON and from logs that are made of it.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// New returns a random key.
func New() Key {
	var k Key
	_, _ = rand.Read(k[:]) // crypto/rand.Read never fails; it ends the program instead
	return k
}

// Derive returns the key that parent gives for a purpose. The context is a
// constant of the program; parts are the variable inputs, each length-prefixed
// so that no two lists of parts collide.
func Derive(parent Key, context string, parts ...[]byte) Key {
	info := binary.AppendUvarint(nil, uint64(len(context)))
	info = append(info, context...)
	for _, p := range parts {
		info = binary.AppendUvarint(info, uint64(len(p)))
		info = append(info, p...)
	}
	out, err := hkdf.Key(sha256.New, parent[:], nil, string(info), Size)
	if err != nil {
		panic("BUG: secret: " + err.Error()) // only for outputs longer than 8160 bytes
	}
	return Key(out)
}

// Signer returns the Ed25519 private key whose seed is k.
func (k Key) Signer() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(k[:]) }

// Seal encrypts one message under a key derived from k, the context and a
// fresh random salt. Equal messages give unequal results.
func Seal(k Key, context string, plain []byte) []byte {
	out := make([]byte, Size, Overhead+len(plain))
	_, _ = rand.Read(out)
	aead := gcm(Derive(k, context, out))
	return aead.Seal(out, zeroNonce[:], plain, nil)
}

// SealAlike is Seal with a salt that follows from the message: equal messages give
// equal results, and each key seals one message only, all the same.
func SealAlike(k Key, context string, plain []byte) []byte {
	salt := Derive(k, saltContext, []byte(context), plain)
	aead := gcm(Derive(k, context, salt[:]))
	return aead.Seal(append(make([]byte, 0, Overhead+len(plain)), salt[:]...), zeroNonce[:], plain, nil)
}

const saltContext = "skep sealing salt v1"

// Open is the inverse of Seal and SealAlike. It returns ErrOpen for anything but an unaltered
// message sealed under the same key and context.
func Open(k Key, context string, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, ErrOpen
	}
	aead := gcm(Derive(k, context, sealed[:Size]))
	plain, err := aead.Open(nil, zeroNonce[:], sealed[Size:], nil)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

// zeroNonce is the nonce of every message: each key seals one message only.
var zeroNonce [12]byte

// gcm returns AES-256-GCM under a key that must seal one message only.
func gcm(k Key) cipher.AEAD {
	b, err := aes.NewCipher(k[:])
	if err != nil {
		panic("BUG: secret: " + err.Error()) // the key size is right by type
	}
	aead, err := cipher.NewGCM(b)
	if err != nil {
		panic("BUG: secret: " + err.Error())
	}
	return aead
}

// SealOnce encrypts plain in place of dst[:0] under a key that is used for
// this one message, with the zero nonce. dst may alias plain exactly.
func SealOnce(k Key, dst, plain []byte) []byte {
	return gcm(k).Seal(dst[:0], zeroNonce[:], plain, nil)
}

// OpenOnce is the inverse of SealOnce.
func OpenOnce(k Key, dst, sealed []byte) ([]byte, error) {
	out, err := gcm(k).Open(dst[:0], zeroNonce[:], sealed, nil)
	if err != nil {
		return nil, ErrOpen
	}
	return out, nil
}

// Stream fills p with a keystream of AES-256-CTR under k: bytes that nobody
// without k can tell from random. It pads packs.
func Stream(k Key, p []byte) {
	b, err := aes.NewCipher(k[:])
	if err != nil {
		panic("BUG: secret: " + err.Error())
	}
	clear(p)
	var iv [aes.BlockSize]byte
	cipher.NewCTR(b, iv[:]).XORKeyStream(p, p)
}
