package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"skep/cache/blocks"
	"skep/cache/packfiles"
	"skep/cache/readerr"
	"skep/cache/readthrough"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/devices"
	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/chunker/secret"
	"skep/chunker/words"
	"skep/cmd/skep/doctor"
	"skep/cmd/skep/home"
	"skep/net/peers"
	"skep/net/swarm"
)

// Recovered is what was found of a drive.
type Recovered struct {
	// Empty says that no state of it was found, though most of those answer who would keep
	// one: it begins with nothing in it.
	Empty bool
	// Few says that few copies of its newest head or of the keyring were found, or that
	// too few keepers of the keyring or of some device's head answered: there may be a
	// newer one, whose keepers are away.
	Few bool
	// Unknown says that the keyring with the new device is not with keepers yet.
	Unknown bool
	// Clock says that this computer's clock and that of a peer differ, and what to do;
	// empty: they do not. It is there also if the recovery failed.
	Clock string
}

// Recover makes the home of a drive that its words bring back, as a new device.
// tell, if not nil, is told of each step.
func Recover(ctx context.Context, h home.Dir, s home.Settings, entropy words.Entropy, passphrase []byte, tell func(string)) (Recovered, error) {
	if tell == nil {
		tell = func(string) {}
	}
	keys := keyring.Local{Device: secret.New()}
	release, err := BeginHome(h, s.Offer)
	if err != nil {
		return Recovered{}, err
	}
	defer release()
	n, err := newNetwork(h, s, keys.Signer(), discard())
	if err != nil {
		return Recovered{}, err
	}
	defer n.close()
	return n.recover(ctx, s, keys, entropy, passphrase, tell)
}

// recover makes the network's home that of a drive, on a device with these keys.
func (n *network) recover(ctx context.Context, s home.Settings, keys keyring.Local, entropy words.Entropy, passphrase []byte, tell func(string)) (out Recovered, err error) {
	ctx = swarm.Search(ctx, silentFor)
	tell("looking for the swarm")
	if err := n.join(ctx); err != nil {
		return out, err
	}
	out.Clock = wrongClock(ctx, n.peers.List(), n.client, time.Now)
	tell("looking for the recovery record")
	found, err := n.findDrive(ctx, entropy)
	if err != nil {
		return out, err
	}
	keys.Root = found.root
	s.Drive, s.Prefix = hex.EncodeToString(found.drive.ID[:]), found.ring.FreePrefix()
	ring, rec, err := n.begin(ctx, &found, keys, s.Prefix)
	if err != nil {
		return out, err
	}
	rec.Recovery = found.recovery
	if !found.empty {
		tell("reading the newest state of the drive")
	}
	if err := found.adopt(ctx, n.home, n); err != nil {
		return out, err
	}
	if err := n.writePeers(); err != nil {
		return out, err
	}
	out.Empty, out.Few, out.Unknown = found.empty, found.few, rec.Keyring == nil
	return out, createDrive(n.home, s, keys, ring, rec, passphrase, nil)
}

// clocksAsked is how many peers are asked for the time, and clockPatience how long that
// may take.
const (
	clocksAsked   = 3
	clockPatience = 2 * time.Second
)

// wrongClock compares this computer's clock with those of some peers, of those that
// answered when asked last. It returns what there is to say; nothing if they agree.
func wrongClock(ctx context.Context, known []peers.Peer, ask swarm.Greeter, now func() time.Time) string {
	ctx, cancel := context.WithTimeout(ctx, clockPatience)
	defer cancel()
	var told []doctor.Reached
	for _, p := range known {
		if p.HelloAt.IsZero() || p.Misses > 0 || len(told) == clocksAsked {
			continue
		}
		hello, err := ask.Hello(ctx, p.Key)
		told = append(told, doctor.Reached{Err: err, Clock: time.Unix(hello.Time, 0), At: now()})
	}
	if f := doctor.Clock(now(), told); f.Verdict != doctor.Good {
		return "clock: " + f.Says + "; " + f.Do
	}
	return ""
}

// begin makes a new device known, and only then finds the head that it begins with. It
// returns the keyring with the device.
func (n *network) begin(ctx context.Context, f *foundDrive, keys keyring.Local, prefix uint32) (keyring.Keyring, recoveryRecords, error) {
	if err := n.keepNewest(ctx, f); err != nil {
		return f.ring, recoveryRecords{}, err
	}
	ring := withOwn(f.ring, keys, prefix)
	shared, rec, err := n.announce(ctx, f.root, ring)
	if err != nil {
		return ring, rec, err
	}
	f.learn(shared, deviceKey(keys))
	if err := n.findHead(ctx, f); err != nil {
		return ring, rec, err
	}
	return ring, rec, f.isThere()
}

// isThere returns an error if no head was found, and it is not known either that there is
// none: who went on would have an empty drive in place of his own.
func (f *foundDrive) isThere() error {
	if f.empty && f.unheard {
		return fmt.Errorf("the words are right, but no state of the drive was found, and too few of the peers answer that would keep it: nothing is made here, as the drive would begin empty; when more of its peers are there, try again (%w)", devices.ErrUnheard)
	}
	return nil
}

// learn takes in what a keyring says that was read later, with a new device in it, which
// has no head.
func (f *foundDrive) learn(ring keyring.Keyring, own group.PeerKey) {
	f.ring, f.own = keyring.Join(f.ring, ring), own
	if drive, ok := f.ring.Drive(f.drive.ID); ok {
		f.drive = drive
	}
}

// keepNewest has the device of the newest head stay in the keyring, if another one has to
// give way to the new device: only devices in the keyring are asked for their heads.
func (n *network) keepNewest(ctx context.Context, f *foundDrive) error {
	if !f.ring.Full() {
		return nil
	}
	if err := n.findHead(ctx, f); err != nil {
		return err
	}
	if err := f.isThere(); err != nil {
		return err
	}
	if !f.empty {
		f.ring = f.ring.Certified(f.root, f.head.Device, f.ring.NextCreated(f.head.Device, time.Now().Unix()))
	}
	return nil
}

// announce makes a new device known, before it looks for the commit that it begins
// with: whoever finds it there keeps what that needs, and whoever has not found it yet
// had published what he gives up something for before. What keepers do not take, after
// some tries, the daemon brings them: then there is no keyring in the records that are
// returned. shared is all that is known of it.
func (n *network) announce(ctx context.Context, root secret.Key, ring keyring.Keyring) (shared keyring.Keyring, rec recoveryRecords, err error) {
	shared, err = n.shareRing(ctx, root, ring)
	for try := 1; err != nil && try < headTries && !errors.Is(err, keyring.ErrTooLarge) && ctx.Err() == nil; try++ {
		n.lookAgain(ctx)
		shared, err = n.shareRing(ctx, root, shared)
	}
	switch {
	case errors.Is(err, keyring.ErrTooLarge):
		return shared, rec, err
	case err != nil:
		return shared, rec, ctx.Err()
	}
	rec.Keyring, err = sealRing(root, shared)
	return shared, rec, err
}

// foundDrive is what the words led to.
type foundDrive struct {
	root     secret.Key
	recovery [][]byte // the record's copies, to be kept findable
	ring     keyring.Keyring
	fewRings bool          // few copies of it were found: there may be a newer one, which names more devices
	own      group.PeerKey // the new device, when the keyring names it
	drive    keyring.Drive
	head     commit.Head
	empty    bool // nothing was ever published
	few      bool // few copies of the head or the keyring were found, or another device may have a newer head
	unheard  bool // there are devices of which it is not known whether they have a head, or a newer one
}

// findDrive follows words → recovery record → root secret → keyring.
func (n *network) findDrive(ctx context.Context, entropy words.Entropy) (foundDrive, error) {
	var f foundDrive
	found := n.records.Get(ctx, slotKeys(keyring.RecoverySlots(entropy.Key())))
	rec, number, err := keyring.OpenRecovery(entropy.Key(), found.Words())
	if err != nil {
		return f, fmt.Errorf("no drive was found for these words in this swarm: are they the right ones, is this the right swarm, and are most of its peers there? (%w)", err)
	}
	f.root = rec.Root
	// All copies, however few were found.
	if f.recovery, err = keyring.SealRecovery(entropy.Key(), rec, number, time.Now().Add(recoveryTime).Unix()); err != nil {
		return f, err
	}
	if f.ring, f.fewRings, err = n.findRing(ctx, f.root); err != nil {
		return f, err
	}
	if len(f.ring.Drives) == 0 {
		return f, errors.New("the keyring names no drive")
	}
	f.drive = f.ring.Drives[0]
	return f, nil
}

// findRing reads the keyring, and looks around for more of its keepers while few have it,
// as it does for heads: only devices that it names are asked for theirs.
func (n *network) findRing(ctx context.Context, root secret.Key) (ring keyring.Keyring, few bool, err error) {
	for try := 1; ; try++ {
		var read keyring.Keyring
		var found swarm.Found
		if read, found, err = n.readRing(ctx, root, 0); err == nil {
			ring = keyring.Join(ring, read)
		}
		slots, peers := found.Spread(ring.Number)
		few = !found.Heard || 2*slots <= keyring.Slots || peers < min(2, n.usables())
		if !few || try == headTries || ctx.Err() != nil {
			break
		}
		n.lookAgain(ctx)
	}
	if ring.Number > 0 {
		err = nil // it was read before
	}
	return ring, few, err
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
