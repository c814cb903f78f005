// Package secret derives keys and seals single messages.
//
// Every key of skep is 32 bytes and descends from one of a few random roots by
// HKDF-SHA-256 (RFC 5869) with a context that names its purpose. Nothing here
// is a primitive of our own: it composes crypto/hkdf, AES-256-GCM and Ed25519
// of the standard library.
//
// The rule of the house is that a key never seals two messages. Seal keeps it
// by deriving a fresh key from a random salt for each message.
package secret
