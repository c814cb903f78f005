package daemon

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"skep/cache/blocks"
	"skep/cache/state"
	"skep/chunker/keyring"
	"skep/chunker/secret"
	"skep/chunker/words"
	"skep/cmd/skep/home"
)

// Init makes the home of a new drive and returns its recovery words. show, if not nil, is
// to have them kept before there is a drive: if it fails, or the process is ended before it
// returns, there is none.
func Init(h home.Dir, s home.Settings, passphrase []byte, show func(words.Entropy) error) (words.Entropy, error) {
	entropy := words.New()
	keys := keyring.Local{Device: secret.New(), Root: secret.New()}
	d := keyring.NewDrive("drive")
	s.Drive, s.Prefix = hex.EncodeToString(d.ID[:]), 1
	ring := keyring.Keyring{Number: 1}.WithDrive(d).WithDevice(certify(keys, 1))
	now := time.Now()
	rec, err := keyring.SealRecovery(entropy.Key(), keyring.Recovery{Root: keys.Root, Created: now.Unix()}, 1, now.Add(recoveryTime).Unix())
	if err != nil {
		return entropy, err
	}
	release, err := BeginHome(h, s.Offer)
	if err != nil {
		return entropy, err
	}
	defer release()
	if err := newTables(h); err != nil {
		return entropy, err
	}
	var last func() error
	if show != nil {
		last = func() error { return show(entropy) }
	}
	return entropy, createDrive(h, s, keys, ring, recoveryRecords{Recovery: rec}, passphrase, last)
}

// BeginHome begins a home, as h.Begin does, on a disk that has room for what is offered
// to others.
func BeginHome(h home.Dir, offer int64) (release func(), err error) {
	if err := CheckOffer(h, offer); err != nil {
		return nil, err
	}
	return h.Begin()
}

// newTables writes the tables of a drive of which nothing is stored yet, so that
// all references are counted.
func newTables(h home.Dir) error {
	st, err := state.Open(h.Path("state"))
	if err != nil {
		return err
	}
	var b state.Batch
	blocks.SetCounted(&b)
	_, err = st.Apply(&b)
	return errors.Join(err, st.Close())
}

func certify(keys keyring.Local, prefix uint32) keyring.Certificate {
	return certifyAt(keys, prefix, time.Now().Unix())
}

func certifyAt(keys keyring.Local, prefix uint32, created int64) keyring.Certificate {
	name, _ := os.Hostname() // a name for people; it may be empty
	return keyring.Certify(keys.Root, keyring.Device{Key: deviceKey(keys), Prefix: prefix, Name: name, Created: created})
}

// withOwn returns the next keyring, with this device put into it.
func withOwn(ring keyring.Keyring, keys keyring.Local, prefix uint32) keyring.Keyring {
	ring = ring.WithDevice(certifyAt(keys, prefix, ring.NextCreated(deviceKey(keys), time.Now().Unix())))
	ring.Number++
	return ring
}

// createDrive writes the files of a home with a drive. ring is the keyring with which
// the device begins; last is as for home.Dir.Create.
func createDrive(h home.Dir, s home.Settings, keys keyring.Local, ring keyring.Keyring, rec recoveryRecords, passphrase []byte, last func() error) error {
	sealed, err := sealRing(keys.Root, ring)
	if err != nil {
		return err
	}
	if h.Exists() {
		return fmt.Errorf("%w: %s", home.ErrExists, h)
	}
	if err := os.MkdirAll(string(h), 0o700); err != nil {
		return fmt.Errorf("home: %w", err)
	}
	if err := h.WriteFile(keyringFile, sealed); err != nil {
		return err
	}
	if err := rec.save(h); err != nil {
		return err
	}
	return h.Create(s, keys, passphrase, last)
}

// sealRing returns one copy of a keyring, as a home keeps it.
func sealRing(root secret.Key, ring keyring.Keyring) ([]byte, error) {
	sealed, err := keyring.SealKeyring(root, ring, time.Now().Add(headTime).Unix())
	if err != nil {
		return nil, err
	}
	return sealed[0], nil
}
