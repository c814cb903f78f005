package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skep/cache/state"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/devices"
	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/cmd/skep/home"
)

// lookEvery is how often it is looked for commits of other devices, by the one time
// scale.
func lookEvery(s home.Settings) time.Duration { return greetEvery(s) }

// outlook is what a look around has found.
type outlook struct {
	began time.Time
	err   error // why commits may need what the newest one here does not; nil: none does
}

// overtakenError says that the words bring back the state of another device, which does
// not have what this one made.
type overtakenError struct {
	by           keyring.Device
	number, here uint64
}

func (o *overtakenError) Error() string {
	return fmt.Sprintf("what was synced here is out, but the words bring back another state, without it: that of %s, whose newest commit counts more (number %d, %d here). "+
		"To go on, choose one computer: bring the drive back from its words in another home (skep recover --home DIR …), and copy there what is in this one alone",
		devices.Describe(o.by), o.number, o.here)
}

// setBackError says what one can do with a device that was set back.
type setBackError struct{ *devices.SetBackError }

func (e *setBackError) Error() string {
	return fmt.Sprintf("this home was set back to an earlier state, as by a backup that was restored, or it runs twice: "+
		"%v. Nothing goes out from here any more, and nothing is deleted. To go on: bring the drive back from its words in another home "+
		"(skep recover --home DIR …), and copy there what is in this one alone", e.SetBackError)
}

// errUnnamed says that the keyring that keepers have lacks something of this device's.
var errUnnamed = errors.New("the keyring that keepers have does not have this device")

// watchOthers finds out whether commits are published that this device does not
// know, or may come to be, until ctx ends: those of another device, as when a drive
// was recovered and the computer that was thought lost came back, or of this one, if
// its disk was set back to an earlier state. What such a commit needs, and the newest
// one here does not, must not be given up.
func (d *drive) watchOthers(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.announced: // before that nobody can have the drive but this device
	}
	d.net.first.wait(ctx)
	for wait := time.Duration(0); ctx.Err() == nil; {
		if d.rest(ctx, wait); ctx.Err() == nil {
			wait = d.lookOnce(ctx, wait)
		}
	}
	return nil
}

// sooner is by how much a look comes sooner that something waits for.
const sooner = 10

// rest waits for the time of the next look. That comes sooner if something waits to be
// given up, and the last look found that this device is alone: so the next one may.
func (d *drive) rest(ctx context.Context, wait time.Duration) {
	restUntil(ctx, wait, d.lookEvery/sooner, func() bool {
		o := d.outlook.Load()
		return o != nil && o.err == nil && d.engine.Progress().Waiting > 0
	})
}

// restUntil waits for some time, or until something is worth it, which is asked every so
// often.
func restUntil(ctx context.Context, wait, every time.Duration, worth func() bool) {
	for due := time.Now().Add(wait); ctx.Err() == nil && time.Now().Before(due); {
		select {
		case <-ctx.Done():
		case <-time.After(min(time.Until(due), every)):
		}
		if worth() {
			return
		}
	}
}

// lookOnce looks around, and returns when to do so again.
func (d *drive) lookOnce(ctx context.Context, waited time.Duration) time.Duration {
	now := outlook{began: time.Now()}
	now.err = d.look(ctx)
	if was := d.outlook.Swap(&now); now.err != nil && ctx.Err() == nil && (was == nil || was.err == nil || was.err.Error() != now.err.Error()) {
		d.log.Info("what was deleted is kept at the peers as yet", "why", now.err)
	}
	if err := d.heed(ctx, now.err); err != nil && ctx.Err() == nil {
		d.log.Info("few keepers have the drive's newest state", "err", err)
	}
	if err := d.lookForRecovery(ctx); err != nil && ctx.Err() == nil {
		d.log.Info("few keepers have the recovery record", "err", err)
	}
	var others *devices.OthersError
	var back *devices.SetBackError
	switch {
	case now.err == nil:
		d.engine.Looked()
	case errors.As(now.err, &back), errors.As(now.err, &others):
	default:
		return min(max(2*waited, d.lookEvery/60), d.lookEvery)
	}
	return d.lookEvery
}

// heed does what has to be done at once about what a look found. It returns why too few
// keepers have the newest head, if they do not take it now either.
func (d *drive) heed(ctx context.Context, found error) error {
	if back, ok := errors.AsType[*devices.SetBackError](found); ok {
		d.setBack.Store(&setBackError{back})
	}
	if errors.Is(found, devices.ErrUnkept) {
		return d.publishNewestHead(ctx)
	}
	return nil
}

// A look for which somebody waits takes briefly at most; silentFor is what it gives
// those who are silent when most have answered.
const (
	briefly   = 5 * time.Second
	silentFor = 300 * time.Millisecond
)

// lookBriefly looks around for somebody who waits for it, and lingers. Of what is not heard
// in time, the last look counts; and that this device is alone, it is too brief to tell. It
// returns what heed does.
func (d *drive) lookBriefly(ctx context.Context) error {
	if len(d.net.host.Network().Peers()) == 0 {
		return nil // nobody would answer
	}
	brief, cancel := context.WithTimeout(ctx, briefly)
	defer cancel()
	return d.heed(ctx, d.look(brief))
}

// isAlone reports whether a look that began after since found nobody else. It is the
// engine's Alone.
func (d *drive) isAlone(since time.Time) bool {
	o := d.outlook.Load()
	return o != nil && o.err == nil && o.began.After(since)
}

// look returns why there may be commits that the newest one here does not follow, or
// why that cannot be told; nil if there are none.
func (d *drive) look(ctx context.Context) error {
	before, err := d.commits()
	if err != nil {
		return err
	}
	ring, err := d.lookForRing(ctx)
	if err != nil {
		return err
	}
	own, ok := ring.Drive(d.id)
	if !ok {
		return errUnnamed
	}
	found := d.net.readHeads(ctx, &foundDrive{root: d.keys.Root, ring: ring, drive: own})
	after, err := d.commits()
	if err != nil {
		return err
	}
	d.takeRival(devices.Rival(found, d.net.self, after.newest), after.newest)
	seen, err := d.sees(ctx, found, time.Now())
	if err != nil {
		return err
	}
	v := devices.View{Self: d.net.self, Began: d.began, Newest: after.newest, First: before.ownNewest(d.net.self), Last: after.ownLast(d.net.self), Seen: seen}
	return v.Judge(found)
}

// presenceFile keeps what looks around have found of other devices.
const presenceFile = "others"

// loadPresence reads what was seen by looks before.
func loadPresence(h home.Dir) (p devices.Presence, err error) {
	b, err := h.ReadFile(presenceFile)
	if err != nil || b == nil {
		return p, err
	}
	return devices.ParsePresence(b), nil
}

// sees takes note of what a look has found, and returns all that is known then. Of a
// device that joined, not before that one can see this one: it may think that it took its
// place.
func (d *drive) sees(ctx context.Context, found []devices.Found, now time.Time) (devices.Presence, error) {
	if joined := d.joined(found); len(joined) > 0 {
		d.askAnew(joined)
		if err := errors.Join(d.renewCertificate(ctx, now), d.publishRecovery(ctx)); err != nil {
			return devices.Presence{}, err
		}
	}
	d.presenceMu.Lock()
	defer d.presenceMu.Unlock()
	next, changed := d.presence.After(found, now)
	if !changed {
		return d.presence, nil
	}
	if err := d.home.WriteFile(presenceFile, next.Encode()); err != nil {
		return next, err
	}
	d.presence = next
	return next, nil
}

// joined returns the devices that were found for the first time, and were not there when
// this one began.
func (d *drive) joined(found []devices.Found) (out []group.PeerKey) {
	d.presenceMu.Lock()
	defer d.presenceMu.Unlock()
	for _, f := range found {
		_, known := d.presence.Of(f.Device.Key)
		_, before := d.began[f.Device.Key]
		if !known && !before {
			out = append(out, f.Device.Key)
		}
	}
	return out
}

// askAnew has holders asked anew, once for each device that joined: it may have given up
// what this one believes to be with them.
func (d *drive) askAnew(joined []group.PeerKey) {
	d.presenceMu.Lock()
	before := len(d.heeded)
	if d.heeded == nil {
		d.heeded = map[group.PeerKey]bool{}
	}
	for _, key := range joined {
		d.heeded[key] = true
	}
	more := len(d.heeded) > before
	d.presenceMu.Unlock()
	if more && d.presume != nil {
		d.presume()
	}
}

// overtaken returns why the words do not bring back what this device has made; nil if
// they do, as far as the last look around has shown.
func (d *drive) overtaken() error {
	r := d.rival.Load()
	if r == nil {
		return nil
	}
	here, err := d.commits()
	if err != nil || devices.Follows(here.newest, r.Head) || !devices.Replaces(r.Head, here.head) {
		return err
	}
	return &overtakenError{r.Device, r.Head.Number, here.head.Number}
}

// takeRival takes note of a rival that was found; nil is none. The one that is known
// stays, if the newest commit does not follow it and this one does not replace it: it may
// just not have been heard of this time.
func (d *drive) takeRival(r *devices.Found, newest *commit.Commit) {
	for r != nil {
		was := d.rival.Load()
		if was != nil && !devices.Follows(newest, was.Head) && !devices.Replaces(r.Head, was.Head) || d.rival.CompareAndSwap(was, r) {
			return
		}
	}
}

// lookForRing returns the keyring that keepers have. If they lack something of this
// device's, or few of its slots have it, it is brought to them again; if they have news,
// these are kept.
func (d *drive) lookForRing(ctx context.Context) (keyring.Keyring, error) {
	known := *d.shared.Load()
	ring, found, err := d.net.readRing(ctx, d.keys.Root, known.Number)
	lost := errors.Is(err, keyring.ErrAbsent) || errors.Is(err, keyring.ErrStale)
	lacks := func() bool { return lost || !ring.Has(known) || !ring.Names(d.keys.Root, d.net.self) }
	switch {
	case !found.Heard:
		return ring, fmt.Errorf("the keyring: %w", devices.ErrUnheard)
	case err != nil && !lost:
		return ring, err
	case lacks():
		d.recoveryOut.Store(false)
		return ring, errors.Join(errUnnamed, d.publishRecovery(ctx))
	}
	slots, _ := found.Spread(ring.Number)
	if ring.Number > known.Number || 2*slots <= keyring.Slots {
		return ring, d.publishRecovery(ctx)
	}
	return ring, nil
}

// lookForRecovery brings the recovery record to keepers again, and the keyring, if most of
// its copies are gone. A copy that the directory alone has ends within days.
func (d *drive) lookForRecovery(ctx context.Context) error {
	var keys []group.SlotKey
	for _, word := range d.recover.Recovery {
		r, err := group.ParseSlotRecord(word)
		if err != nil {
			return err
		}
		keys = append(keys, r.Key())
	}
	found := d.net.records.Get(ctx, keys)
	slots, peers := found.Spread(0)
	most := 2*slots > len(keys)
	if !found.Heard || most && peers >= min(2, d.net.usables()) {
		return nil
	}
	if !most { // else one peer alone has it, and others may not take it
		d.recoveryOut.Store(false)
	}
	return d.publishRecovery(ctx)
}

// commits are those that this device knows of.
type commits struct {
	newest   *commit.Commit // nil: none
	head     commit.Head    // of it
	intended commit.Head    // of the one that is to be, if there is one
}

// ownNewest is the head of the newest one, if it is a device's own.
func (c commits) ownNewest(self group.PeerKey) commit.Head {
	if c.head.Device == self {
		return c.head
	}
	return commit.Head{}
}

// ownLast is the last head that keepers may have of a device.
func (c commits) ownLast(self group.PeerKey) commit.Head {
	if c.intended.Number > 0 {
		return c.intended
	}
	return c.ownNewest(self)
}

// commitsIn reads them from tables, the intended one first: it may become the newest
// meanwhile, and is then one of the two. None that was on its way to keepers before may be
// missing, or this device would seem to be set back.
func commitsIn(st state.Reader) (out commits, err error) {
	if out.intended, _, err = writeback.LoadIntended(st); err != nil {
		return out, err
	}
	if out.head, _, err = writeback.LoadHead(st); err != nil {
		return out, err
	}
	c, _, ok, err := writeback.LoadCommit(st)
	if ok {
		out.newest = &c
	}
	return out, err
}
