package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"skep/cache/backing"
	"skep/cache/blocks"
	"skep/cache/evict"
	"skep/cache/journal"
	"skep/cache/packfiles"
	"skep/cache/readthrough"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/devices"
	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/chunker/secret"
	"skep/cmd/skep/home"
	"skep/fs/mount"
	"skep/repair/health"
)

// drive is the drive of a home, open on this device.
type drive struct {
	id      keyring.DriveID
	keys    keyring.Local
	ring    keyring.Keyring         // as it was known when the drive was opened
	began   map[group.PeerKey]int64 // when the devices were certified that this one knew of when it began
	epoch   keyring.Epoch
	prefix  uint32 // of the inode numbers that this device gives
	net     *network
	sink    *sink
	st      *state.Store
	commits func() (commits, error) // those that st knows
	files   *backing.Store
	tree    *tree.Tree
	table   *blocks.Table
	packs   *packfiles.Store
	reader  *readthrough.Reader
	engine  *writeback.Engine
	home    home.Dir
	log     *slog.Logger
	recover recoveryRecords
	keeper  *evict.Keeper
	letGo   letGo
	indexMeasure

	publishing  *semaphore.Weighted                                        // of one: held while recover and shared are brought to keepers
	shared      atomic.Pointer[keyring.Keyring]                            // the newest one known
	recoveryOut atomic.Bool                                                // keepers have the recovery record, and a keyring with this device
	keptWith    atomic.Int64                                               // peers that there were when all records were brought to them last
	announced   chan struct{}                                              // closed when that was so for the first time
	once        sync.Once                                                  // closes it
	health      func(id group.ID, number uint16) (health.PackHealth, bool) // what repair thinks; set before anything runs
	alone       func() map[group.ID]group.Bitmap                           // the packs that are only here, as repair thinks; set likewise, nil: none
	presume     func()                                                     // has repair ask all holders anew; set likewise, nil: nothing is asked

	lookEvery  time.Duration
	outlook    atomic.Pointer[outlook]       // of the last look around; nil: none yet
	setBack    atomic.Pointer[setBackError]  // that this device was; nil: nobody has found that
	presence   devices.Presence              // of other devices
	heeded     map[group.PeerKey]bool        // devices that joined, for which holders were asked anew
	presenceMu sync.Mutex                    // guards presence and heeded
	rival      atomic.Pointer[devices.Found] // of another device, not followed when it was found; nil: none was
}

// openDrive opens the drive. An index that turns out damaged on the way is made
// anew.
func openDrive(ctx context.Context, h home.Dir, s home.Settings, keys keyring.Local, n *network, log *slog.Logger) (*drive, error) {
	d, err := openDriveOnce(ctx, h, s, keys, n, log)
	if errors.Is(err, state.ErrDamaged) {
		log.Warn("opening the drive again", "err", err)
		return openDriveOnce(ctx, h, s, keys, n, log)
	}
	return d, err
}

func openDriveOnce(ctx context.Context, h home.Dir, s home.Settings, keys keyring.Local, n *network, log *slog.Logger) (_ *drive, err error) {
	d := &drive{keys: keys, prefix: s.Prefix, net: n, home: h, log: log, sink: &sink{n: n}, publishing: semaphore.NewWeighted(1), announced: make(chan struct{}), lookEvery: lookEvery(s)}
	defer func() {
		if err != nil {
			d.close()
			err = fmt.Errorf("drive: %w", beyondUse(err))
		}
	}()
	if err := d.openKeys(s.Drive); err != nil {
		return d, err
	}
	if err := d.openTables(); err != nil {
		return d, err
	}
	d.reader = readthrough.New(d.table, d.packs, source{n}, d.names())
	if err := d.afterLoss(ctx); err != nil {
		return d, err
	}
	d.tree, err = tree.Open(tree.Options{
		State: d.st, Backing: d.files, Content: d.reader, Device: s.Prefix, Log: log,
		Passthrough: mount.MayPassthrough(),
		Capacity:    d.capacity,
		Held:        d.held,
		Same:        d.isChunk,
		Damaged:     d.letGo.note,
		Pinned:      d.pinsChanged,
		Changed:     d.changed,
		Owner:       tree.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())},
	})
	if err != nil {
		return d, err
	}
	d.engine, err = writeback.New(writeback.Config{
		State: d.st, Tree: d.tree, Table: d.table, Reader: d.reader, Packs: d.packs, Sink: d.sink, Publish: d.publishHead, Alone: d.isAlone, Lost: d.isBeyondReach, OnlyHere: d.onlyHere, Said: d.said, Weak: d.sink.weak, Live: d.live, There: n.there,
		Drive: d.id, Epoch: d.epoch.Number, Device: keys.Signer(), Root: keys.Root, Names: d.names(),
		Read: d.epoch.Read, Convergence: d.epoch.Convergence, ContentClass: contentClass,
		Timing: timing(s), Now: time.Now, Log: log,
	})
	if err != nil {
		return d, err
	}
	d.keeper = d.newKeeper(s.Cache)
	d.tree.SetRoom(d.keeper)
	return d, nil
}

// beyondUse says of an error that the home cannot be used any more, if it is one.
func beyondUse(err error) error {
	for _, gone := range []error{writeback.ErrNoState, journal.ErrDamaged, keyring.ErrAbsent} {
		if errors.Is(err, gone) {
			return home.Gone(err)
		}
	}
	return err
}

// packHealth is what repair thinks of a pack, if it knows it.
func (d *drive) packHealth(id group.ID, number uint16) (health.PackHealth, bool) {
	if d.health == nil {
		return health.PackHealth{}, false
	}
	return d.health(id, number)
}

// onlyHere are the packs of which too few shards are left at holders, and a copy is here.
func (d *drive) onlyHere() map[group.ID]group.Bitmap {
	if d.alone == nil {
		return nil
	}
	return d.alone()
}

// contentClass is the largest class of content packs. Three of them, with
// their parity, are in memory while a commit runs.
const contentClass = 24

// timing is when commits start, by the one time scale in tests and demos.
func timing(s home.Settings) writeback.Timing {
	t := writeback.DefaultTiming
	if dead := time.Duration(s.DeadAfter); dead > 0 && dead < time.Hour {
		t.Quiet, t.Retry = time.Second, 500*time.Millisecond
	}
	return t
}

// readerHere reads what is on this device, and asks nobody.
func (d *drive) readerHere() *readthrough.Reader {
	r := readthrough.New(d.table, d.packs, nil, d.names())
	r.SetCommit(d.reader.Commit())
	return r
}

// names is the secret under which entries of directories are placed.
func (d *drive) names() secret.Key {
	own, _ := d.ring.Drive(d.id)
	return own.NameKey
}

func (d *drive) changed() {
	if d.engine != nil { // not while the tree is being opened
		d.engine.Changed()
	}
}

// openKeys reads the keyring as this device knows it.
func (d *drive) openKeys(id string) error {
	raw, err := hex.DecodeString(id)
	if err != nil || len(raw) != len(d.id) {
		return fmt.Errorf("settings: drive id %q", id)
	}
	d.id = keyring.DriveID(raw)
	if err := d.openRing(); err != nil {
		return err
	}
	own, ok := d.ring.Drive(d.id)
	if !ok {
		return fmt.Errorf("the keyring does not have drive %v", d.id)
	}
	d.epoch = own.Newest()
	return nil
}

// openRing reads the keyring that this device began with, and the newest that keepers
// are known to have.
func (d *drive) openRing() error {
	word, err := d.home.ReadFile(keyringFile)
	if err != nil {
		return err
	}
	if d.ring, err = keyring.OpenKeyring(d.keys.Root, [][]byte{word}, 0); err != nil {
		return err
	}
	d.began = map[group.PeerKey]int64{}
	for _, dev := range d.ring.Known(d.keys.Root) {
		d.began[dev.Key] = dev.Created
	}
	if d.presence, err = loadPresence(d.home); err != nil {
		return err
	}
	if d.recover, err = loadRecovery(d.home); err != nil {
		return err
	}
	if len(d.recover.Keyring) > 0 {
		newest, err := keyring.OpenKeyring(d.keys.Root, [][]byte{d.recover.Keyring}, 0)
		if err != nil {
			return err
		}
		d.ring = keyring.Join(newest, d.ring)
		d.isOut()
	}
	d.shared.Store(&d.ring)
	return nil
}

// isOut takes note that keepers have the recovery record and the keyring.
func (d *drive) isOut() {
	d.recoveryOut.Store(true)
	d.once.Do(func() { close(d.announced) })
}

func (d *drive) openTables() (err error) {
	damaged := func(err error) {
		d.log.Error("what is written fails until the index is made anew, from the newest commit and the journal: skep down, then skep mount", "err", err)
	}
	if d.st, err = state.OpenWith(d.home.Path("state"), state.Options{Damaged: damaged}); err != nil {
		return err
	}
	d.commits = func() (commits, error) { return commitsIn(d.st) }
	if d.files, err = backing.Open(d.home.Path("files")); err != nil {
		return err
	}
	if d.packs, err = packfiles.Open(d.home.Path("packs")); err != nil {
		return err
	}
	d.table = blocks.New(d.st)
	return writeback.Check(d.st)
}

// restorePatience is how long opening a drive waits for peers, where what brings
// a lost index back is not here any more.
const restorePatience = time.Minute

// afterLoss brings back what a lost index held.
func (d *drive) afterLoss(ctx context.Context) error {
	if !d.st.Rebuilt() {
		return nil
	}
	d.log.Warn("the local index was lost and is made anew from the newest commit and the journal")
	ctx, cancel := context.WithTimeout(ctx, restorePatience)
	defer cancel()
	err := writeback.Restore(ctx, d.st, d.table, d.reader)
	if err == nil {
		return nil
	}
	if jerr := d.net.join(ctx); jerr != nil {
		return errors.Join(err, jerr)
	}
	return writeback.Restore(ctx, d.st, d.table, d.reader)
}

// services are what an open drive runs, beside its network.
func (d *drive) services() []service {
	return []service{
		{"journal", d.tree.Run},
		{"write-back", d.engine.Run},
		{"cache", d.keeper.Run},
		{"pins", d.keeper.KeepPins},
		{"records", d.keepFindable},
		{"leases", d.keepWanted},
		{"other devices", d.watchOthers},
		{"sweep", func(ctx context.Context) error {
			if err := d.tree.Sweep(ctx); err != nil && ctx.Err() == nil {
				d.log.Warn("sweeping backing files", "err", err)
			}
			return nil
		}},
	}
}

// close ends what openDrive began.
func (d *drive) close() {
	if d.tree != nil {
		d.tree.Close()
	}
	if d.st != nil {
		if err := d.st.Close(); err != nil {
			d.log.Error("closing the tables", "err", err)
		}
	}
}
