package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skep/cache/state"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/cmd/skep/home"
	"skep/net/swarm"
)

// lookEvery is how often it is looked for commits of other devices, by the one time
// scale.
func lookEvery(s home.Settings) time.Duration { return greetEvery(s) }

// outlook is what a look around has found.
type outlook struct {
	began time.Time
	err   error // why commits may need what the newest one here does not; nil: none does
}

// othersError says that there is a device whose commits this one does not follow.
type othersError struct{ device keyring.Device }

func (o *othersError) Error() string {
	return o.name() + " may need what was deleted here, so that it goes on taking room at the peers"
}

func (o *othersError) name() string {
	name := o.device.Name
	if name == "" {
		name = "without a name"
	}
	return fmt.Sprintf("another device of the drive (%s, since %s)", name, time.Unix(o.device.Created, 0).Format(time.DateOnly))
}

// overtakenError says that the words bring back the state of another device, which does
// not have what this one made.
type overtakenError struct {
	*othersError
	number, here uint64
}

func (o *overtakenError) Error() string {
	return fmt.Sprintf("what was synced here is out, but the words bring back another state, without it: that of %s, which made more commits (%d, %d here). "+
		"To go on, choose one computer: bring the drive back from its words in another home (skep recover --home DIR …), and copy there what is in this one alone",
		o.name(), o.number, o.here)
}

// setBackError says that this device published a commit that it does not know of any
// more.
type setBackError struct{ number, here uint64 }

func (e *setBackError) Error() string {
	return fmt.Sprintf("this home was set back to an earlier state, as by a backup that was restored, or it runs twice: "+
		"keepers have commit %d of this device, which is not the one that is here (%d). "+
		"Nothing goes out from here any more, and nothing is deleted. To go on: bring the drive back from its words in another home "+
		"(skep recover --home DIR …), and copy there what is in this one alone", e.number, e.here)
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
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if wait = d.lookOnce(ctx, wait); ctx.Err() != nil {
			return nil
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
	var others *othersError
	var back *setBackError
	switch {
	case now.err == nil:
		d.engine.Looked()
	case errors.As(now.err, &back):
		d.setBack.Store(back)
	case errors.As(now.err, &others):
	default:
		return min(max(2*waited, d.lookEvery/60), d.lookEvery)
	}
	return d.lookEvery
}

// A look for which somebody waits takes briefly at most; silentFor is what it gives
// those who are silent when most have answered.
const (
	briefly   = 5 * time.Second
	silentFor = 300 * time.Millisecond
)

// lookBriefly looks around for somebody who waits for it. Of what is not heard in time,
// the last look counts; and that this device is alone, it is too brief to tell.
func (d *drive) lookBriefly(ctx context.Context) {
	if len(d.net.host.Network().Peers()) == 0 {
		return // nobody would answer
	}
	ctx, cancel := context.WithTimeout(swarm.Linger(ctx, silentFor), briefly)
	defer cancel()
	if back, ok := errors.AsType[*setBackError](d.look(ctx)); ok {
		d.setBack.Store(back)
	}
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
	d.takeRival(rivalIn(found, d.net.self, after.newest), after.newest)
	seen, joined, err := d.sees(found, time.Now())
	if err == nil && joined { // it may think that it took this device's place
		err = errors.Join(d.renewCertificate(ctx, time.Now()), d.publishRecovery(ctx))
	}
	if err != nil {
		return err
	}
	v := view{self: d.net.self, began: d.began, newest: after.newest, first: before.ownNewest(d.net.self), last: after.ownLast(d.net.self), seen: seen}
	return v.judgeAll(found)
}

// overtaken returns why the words do not bring back what this device has made; nil if
// they do, as far as the last look around has shown.
func (d *drive) overtaken() error {
	r := d.rival.Load()
	if r == nil {
		return nil
	}
	here, err := d.commits()
	if err != nil || follows(here.newest, r.head) || !replaces(r.head, here.head) {
		return err
	}
	return &overtakenError{&othersError{r.device}, r.head.Number, here.head.Number}
}

// takeRival takes note of a rival that was found; nil is none. The one that is known
// stays, if the newest commit does not follow it and this one does not replace it: it may
// just not have been heard of this time.
func (d *drive) takeRival(r *foundHead, newest *commit.Commit) {
	for r != nil {
		was := d.rival.Load()
		if was != nil && !follows(newest, was.head) && !replaces(r.head, was.head) || d.rival.CompareAndSwap(was, r) {
			return
		}
	}
}

// rivalIn is, of the heads that the newest commit of this device does not follow, the one
// that a recovery takes; nil if there is none.
func rivalIn(found []foundHead, self group.PeerKey, newest *commit.Commit) (rival *foundHead) {
	for i, f := range found {
		if f.err == nil && f.device.Key != self && !follows(newest, f.head) && (rival == nil || replaces(f.head, rival.head)) {
			rival = &found[i]
		}
	}
	return rival
}

// follows reports whether a commit, or nil, is that of a head or came after it.
func follows(newest *commit.Commit, h commit.Head) bool {
	return newest != nil && newest.After(h.Device, h.Number)
}

// lookForRing returns the keyring that keepers have. If they lack something of this
// device's, it is brought to them again; if they have news, these are kept.
func (d *drive) lookForRing(ctx context.Context) (keyring.Keyring, error) {
	known := *d.shared.Load()
	ring, heard, err := d.net.readRing(ctx, d.keys.Root, known.Number)
	lost := errors.Is(err, keyring.ErrAbsent) || errors.Is(err, keyring.ErrStale)
	lacks := func() bool { return lost || !ring.Has(known) || !ring.Names(d.keys.Root, d.net.self) }
	switch {
	case !heard:
		return ring, fmt.Errorf("the keyring: %w", errUnheard)
	case err != nil && !lost:
		return ring, err
	case lacks():
		d.recoveryOut.Store(false)
		return ring, errors.Join(errUnnamed, d.publishRecovery(ctx))
	case ring.Number > known.Number:
		return ring, d.publishRecovery(ctx)
	}
	return ring, nil
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

// commitsIn reads them from tables.
func commitsIn(st state.Reader) (out commits, err error) {
	c, _, ok, err := writeback.LoadCommit(st)
	if err != nil {
		return out, err
	}
	if ok {
		out.newest = &c
	}
	if out.head, _, err = writeback.LoadHead(st); err != nil {
		return out, err
	}
	out.intended, _, err = writeback.LoadIntended(st)
	return out, err
}

// view is what this device knows when it judges the heads that it found.
type view struct {
	self   group.PeerKey
	began  map[group.PeerKey]int64 // when those were certified that it knew of when it began: it took their place
	newest *commit.Commit
	// Its own last head, before and after it looked; of number 0 if there is none.
	first, last commit.Head
	seen        presence
}

func (v view) judgeAll(found []foundHead) error {
	var errs []error
	for _, f := range found {
		judge := v.judgeOther
		if f.device.Key == v.self {
			judge = v.judgeOwn
		}
		if err := judge(f); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// judgeOwn is about this device's own head: it has to be found, and to be the one that
// is known here.
func (v view) judgeOwn(f foundHead) error {
	not := func(own commit.Head) bool { return f.head.Number == own.Number && f.head.Commit != own.Commit }
	switch {
	case errors.Is(f.err, keyring.ErrAbsent) && v.first.Number == 0:
		return nil
	case f.err != nil:
		return fmt.Errorf("this device's head: %w", f.err)
	case f.head.Number > v.last.Number || not(v.first) || not(v.last):
		return &setBackError{number: f.head.Number, here: v.last.Number}
	case f.few(v.first.Number): // another may be on its way meanwhile
		return fmt.Errorf("this device's head: %w", errUnheard)
	}
	return nil
}

// followsSeen reports whether the newest commit follows the last head that was found of a
// device, now or before.
func (v view) followsSeen(device group.PeerKey) bool {
	seen, _ := v.seen.of(device)
	return seen.Number == 0 || v.newest != nil && v.newest.After(device, seen.Number)
}

// judgeOther is about another device. One that is newer than this one did not know
// how far it would come: it may make a commit at any time that follows an old one. So
// may one that has renewed its certificate since: it is there. Of one whose place this
// one took, a head counts that is not followed, also if it was found by an earlier look
// alone: it may come back with those who keep it.
func (v view) judgeOther(f foundHead) error {
	absent := errors.Is(f.err, keyring.ErrAbsent)
	created, known := v.began[f.device.Key]
	switch later := !known || created != f.device.Created; {
	case f.err != nil && !absent:
		return fmt.Errorf("the head of another device: %w", f.err)
	case !v.seen.lives(f.device.Key):
		return nil
	case later:
		return &othersError{f.device}
	case !v.followsSeen(f.device.Key):
		return &othersError{f.device}
	case absent:
		return nil
	case f.few(f.head.Number):
		return fmt.Errorf("the head of another device: %w", errUnheard)
	}
	return nil
}
