package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sync/errgroup"

	"skep/cache/blocks"
	"skep/cache/hosted"
	"skep/cache/packfiles"
	"skep/cache/readerr"
	"skep/cache/readthrough"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/chunker/record"
	"skep/chunker/secret"
	"skep/chunker/words"
	"skep/cmd/skep/home"
)

const (
	keyringFile  = "keyring"
	recoveryFile = "recovery"
)

// recoveryRecords are the sealed copies of the recovery record and of the
// keyring, which devices bring to keepers again and again.
type recoveryRecords struct {
	_        struct{} `cbor:",toarray"`
	Recovery [][]byte
	Keyring  [][]byte
	// Out says that keepers have them.
	Out bool
}

func loadRecovery(h home.Dir) (recoveryRecords, error) {
	var r recoveryRecords
	b, err := h.ReadFile(recoveryFile)
	if err != nil || b == nil {
		return r, err
	}
	return r, record.Decode(b, 1<<20, &r)
}

func (r recoveryRecords) save(h home.Dir) error { return h.WriteFile(recoveryFile, record.Encode(r)) }

// Init makes the home of a new drive and returns its recovery words.
func Init(h home.Dir, s home.Settings, passphrase []byte) (words.Entropy, error) {
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
	if h.Exists() {
		return entropy, fmt.Errorf("%w: %s", home.ErrExists, h)
	}
	if err := makeHome(h, s.Offer); err != nil {
		return entropy, err
	}
	if err := newTables(h); err != nil {
		return entropy, err
	}
	return entropy, createDrive(h, s, keys, ring, rec, passphrase)
}

// makeHome makes the directory of a home, on a disk that has room for what is
// offered to others.
func makeHome(h home.Dir, offer int64) error {
	free, err := h.Free()
	if err != nil {
		return err
	}
	if offer > free {
		return fmt.Errorf("%w: %s offered, %s free on the disk of %s; offer less with --offer",
			hosted.ErrOffer, humanize.IBytes(uint64(offer)), humanize.IBytes(uint64(free)), h)
	}
	if err := os.MkdirAll(string(h), 0o700); err != nil {
		return fmt.Errorf("home: %w", err)
	}
	return nil
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
	name, _ := os.Hostname() // a name for people; it may be empty
	return keyring.Certify(keys.Root, keyring.Device{Key: deviceKey(keys), Prefix: prefix, Name: name, Created: time.Now().Unix()})
}

// createDrive writes the files of a home with a drive.
func createDrive(h home.Dir, s home.Settings, keys keyring.Local, ring keyring.Keyring, rec [][]byte, passphrase []byte) error {
	sealed, err := keyring.SealKeyring(keys.Root, ring, time.Now().Add(headTime).Unix())
	if err != nil {
		return err
	}
	if h.Exists() {
		return fmt.Errorf("%w: %s", home.ErrExists, h)
	}
	if err := os.MkdirAll(string(h), 0o700); err != nil {
		return fmt.Errorf("home: %w", err)
	}
	if err := h.WriteFile(keyringFile, sealed[0]); err != nil {
		return err
	}
	if err := (recoveryRecords{Recovery: rec, Keyring: sealed}).save(h); err != nil {
		return err
	}
	return h.Create(s, keys, passphrase)
}

// Recover makes the home of a drive that its words bring back, as a new device.
// tell, if not nil, is told of each step.
func Recover(ctx context.Context, h home.Dir, s home.Settings, entropy words.Entropy, passphrase []byte, tell func(string)) error {
	if tell == nil {
		tell = func(string) {}
	}
	keys := keyring.Local{Device: secret.New()}
	if err := makeHome(h, s.Offer); err != nil {
		return err
	}
	n, err := newNetwork(h, s, keys.Signer(), discard())
	if err != nil {
		return err
	}
	defer n.close()
	return n.recover(ctx, s, keys, entropy, passphrase, tell)
}

// recover makes the network's home that of a drive, on a device with these keys.
func (n *network) recover(ctx context.Context, s home.Settings, keys keyring.Local, entropy words.Entropy, passphrase []byte, tell func(string)) error {
	tell("looking for the swarm")
	if err := n.join(ctx); err != nil {
		return err
	}
	tell("looking for the recovery record")
	found, err := n.findDrive(ctx, entropy)
	if err != nil {
		return err
	}
	keys.Root = found.root
	prefix := found.ring.FreePrefix()
	s.Drive, s.Prefix = hex.EncodeToString(found.drive.ID[:]), prefix
	ring := found.ring.WithDevice(certify(keys, prefix))
	ring.Number++
	tell("reading the newest state of the drive")
	if err := found.adopt(ctx, n.home, n); err != nil {
		return err
	}
	return createDrive(n.home, s, keys, ring, found.recovery, passphrase)
}

// foundDrive is what the words led to.
type foundDrive struct {
	root     secret.Key
	recovery [][]byte // the record's copies, to be kept findable
	ring     keyring.Keyring
	drive    keyring.Drive
	head     commit.Head
	empty    bool // nothing was ever published
}

func slotKeys(slots []keyring.Slot) []group.SlotKey {
	out := make([]group.SlotKey, len(slots))
	for i, s := range slots {
		out[i] = s.Key()
	}
	return out
}

// findDrive follows words → recovery record → root secret → keyring → head.
func (n *network) findDrive(ctx context.Context, entropy words.Entropy) (foundDrive, error) {
	var f foundDrive
	words := n.records.Get(ctx, slotKeys(keyring.RecoverySlots(entropy.Key())))
	rec, _, err := keyring.OpenRecovery(entropy.Key(), words)
	if err != nil {
		return f, fmt.Errorf("no drive was found for these words in this swarm: are they the right ones, and is this the right swarm? (%w)", err)
	}
	f.root, f.recovery = rec.Root, words
	ringWords := n.records.Get(ctx, slotKeys(keyring.KeyringSlots(f.root)))
	if f.ring, err = keyring.OpenKeyring(f.root, ringWords, 0); err != nil {
		return f, err
	}
	if len(f.ring.Drives) == 0 {
		return f, errors.New("the keyring names no drive")
	}
	f.drive = f.ring.Drives[0]
	return f, n.findHead(ctx, &f)
}

// findHead takes the newest head of all devices that the keyring knows.
func (n *network) findHead(ctx context.Context, f *foundDrive) error {
	f.empty = true
	var last error
	for _, found := range n.readHeads(ctx, f) {
		switch h := found.head; {
		case found.err != nil:
			if !errors.Is(found.err, keyring.ErrAbsent) {
				last = found.err
			}
		case f.empty || h.Number > f.head.Number || h.Number == f.head.Number && h.Time > f.head.Time:
			f.head, f.empty = h, false
		}
	}
	if f.empty {
		return last
	}
	return nil
}

// headsAtOnce is how many heads are looked for at the same time: one that is not
// there is waited for.
const headsAtOnce = 16

type foundHead struct {
	head commit.Head
	err  error
}

// readHeads reads the heads of all devices in all epochs.
func (n *network) readHeads(ctx context.Context, f *foundDrive) []foundHead {
	devices := f.ring.Known(f.root)
	found := make([]foundHead, len(devices)*len(f.drive.Epochs))
	var g errgroup.Group
	g.SetLimit(headsAtOnce)
	for i, dev := range devices {
		for e := range f.drive.Epochs {
			g.Go(func() error {
				slots := keyring.HeadSlots(f.root, f.drive.ID, dev.Key, f.drive.Epochs[e])
				at := &found[i*len(f.drive.Epochs)+e]
				at.head, at.err = n.readHead(ctx, slots, f.drive.ID, dev.Key)
				return nil
			})
		}
	}
	_ = g.Wait()
	return found
}

func (n *network) readHead(ctx context.Context, slots []keyring.Slot, drive keyring.DriveID, device group.PeerKey) (commit.Head, error) {
	opened, err := keyring.OpenHead(slots, n.records.Get(ctx, slotKeys(slots)), 0)
	if err != nil {
		return commit.Head{}, err
	}
	h, err := commit.ParseHead(opened.Value)
	if err != nil || h.Drive != drive || h.Device != device {
		return commit.Head{}, errors.Join(err, errors.New("the head is of another drive"))
	}
	return h, nil
}

// adopt writes the tables of a device that begins with the commit of the head.
func (f *foundDrive) adopt(ctx context.Context, h home.Dir, n *network) error {
	st, err := state.Open(h.Path("state"))
	if err != nil {
		return err
	}
	err = f.adoptInto(ctx, st, h, n)
	return errors.Join(err, st.Close())
}

// readPatience is how often a block is asked for that is out of reach: where
// thousands are said to hold it, the next time goes on where the last one ended.
const readPatience = 3

func readPatiently(ctx context.Context, r *readthrough.Reader, l commit.Locator) (b []byte, err error) {
	for range readPatience {
		if b, err = r.At(ctx, l); !errors.Is(err, readerr.ErrUnreachable) || ctx.Err() != nil {
			break
		}
	}
	return b, err
}

func (f *foundDrive) adoptInto(ctx context.Context, st *state.Store, h home.Dir, n *network) error {
	if f.empty {
		var b state.Batch
		blocks.SetCounted(&b)
		_, err := st.Apply(&b)
		return err
	}
	packs, err := packfiles.Open(h.Path("packs"))
	if err != nil {
		return err
	}
	table := blocks.New(st)
	r := readthrough.New(table, packs, source{n}, f.drive.NameKey)
	read := func(l commit.Locator) ([]byte, error) { return readPatiently(ctx, r, l) }
	signed, err := read(f.head.Commit)
	if err != nil {
		return fmt.Errorf("the newest state of the drive: %w", err)
	}
	c, err := commit.Parse(signed)
	if err != nil {
		return err
	}
	if c.Drive != f.drive.ID || c.Device != f.head.Device || c.Number != f.head.Number {
		return fmt.Errorf("commit %d is not the one that its head names", c.Number)
	}
	root, err := c.RootRecord()
	if err != nil {
		return err
	}
	if err := tree.Adopt(st, root, c.Files, c.Bytes); err != nil {
		return err
	}
	return writeback.Adopt(st, table, f.head, signed, read)
}
