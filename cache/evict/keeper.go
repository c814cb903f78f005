package evict

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"skep/cache/space"
	"skep/cache/tree"
)

// Config is what a Keeper works with. All fields are needed.
type Config struct {
	Tree *tree.Tree
	// Limit is how much content and tables may take, in bytes; 0 is a share of
	// the disk.
	Limit int64
	// Measure tells what the tables take, and how the disk is.
	Measure func() (tables int64, d space.Disk)
	// Uplink tells how uploading goes.
	Uplink func() Uplink
	// Urge asks for a commit now.
	Urge func()
	// Compact has the room given back that rows took which were deleted, and done told
	// how that ended. It does not wait for it.
	Compact func(done func(error))
	// Patience is how long a writer waits for room while nothing moves; 0 is
	// a quarter of a minute.
	Patience time.Duration
	Now      func() time.Time
	Log      *slog.Logger
}

// Uplink is how uploading goes.
type Uplink struct {
	Commit  uint64        // number of the newest commit
	Sent    int64         // bytes that were stored since the daemon started
	Busy    time.Duration // the time in which something was on its way
	Failing bool          // the last commit failed, and nothing was stored since
}

// Timing of a Keeper.
const (
	// every is how often it looks after the use of the disk when nobody asks.
	every = time.Second
	// wakeEvery is how often writers are told that there is room though nothing moved.
	wakeEvery = 100 * time.Millisecond
	// usualPatience is how long a writer waits for room while nothing moves.
	usualPatience = 15 * time.Second
	// usualWrite is what a program writes at once, at most.
	usualWrite = 1 << 20
)

// Keeper keeps local use within bounds. It is the tree's Room.
type Keeper struct {
	cfg    Config
	kick   chan struct{} // somebody wants room now
	pinned chan struct{} // pins changed

	limit atomic.Int64          // as Config.Limit
	level atomic.Pointer[level] // as measured last
	dead  atomic.Int64          // bytes of rows that were deleted, and still take room

	compacting atomic.Bool // their room is being given back
	asked      atomic.Bool // a writer asked for room

	// Used by Run alone.
	large      hand
	small      hand
	looked     int64 // the limit when content was looked for last
	stuckUntil time.Time
	backOff    time.Duration
	woke       time.Time // when writers were told of room last, though nothing moved
	seen       Uplink

	mu      sync.Mutex    // guards all below
	waiting int           // writers that wait for room
	wanted  int64         // the most that one of them waits for
	owed    int64         // that the disk refused, and nothing was let go of for yet
	refused time.Time     // when a writer gave up on a disk that refused; zero if something moved since
	moved   chan struct{} // closed, and made anew, when there may be room again
	since   time.Time     // when something moved last, or the first began to wait
	full    bool          // a writer was refused, and there was no room since
	speed   space.Speed   // of the uplink
	freed   int64         // let go of in this run
	pins    Pins          // as seen last
}

// Format hides keys, and what leads to them, from every formatting verb.
func (*Keeper) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "evict.Keeper(…)") }

// level is what was measured last.
type level struct {
	tables int64 // without the content of small files
	passed int64 // bytes of files that the kernel writes alone now
	disk   space.Disk
	marks  space.Marks
}

// New returns a Keeper that has measured once.
func New(cfg Config) *Keeper {
	k := &Keeper{cfg: cfg, kick: make(chan struct{}, 1), pinned: make(chan struct{}, 1), moved: make(chan struct{})}
	if k.cfg.Patience == 0 {
		k.cfg.Patience = usualPatience
	}
	k.large = hand{look: cfg.Tree.Residents, evict: k.evictLarge}
	k.small = hand{look: cfg.Tree.Smalls, evict: k.evictSmall}
	k.limit.Store(cfg.Limit)
	k.measure()
	return k
}

// Limit is what was asked for, 0 for a share of the disk.
func (k *Keeper) Limit() int64 { return k.limit.Load() }

// SetLimit changes it.
func (k *Keeper) SetLimit(limit int64) {
	k.limit.Store(limit)
	k.hurry()
}

// Run does its work until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-k.kick:
		}
		if err := k.Look(ctx); err != nil && ctx.Err() == nil {
			k.cfg.Log.Warn("making room in the cache", "err", err)
		}
		k.urge()
		// Who waits in vain asks at once for another look.
		if now := k.cfg.Now(); now.Sub(k.woke) >= wakeEvery && k.fits(usualWrite) && !k.refusing() {
			k.woke = now
			k.wake(false)
		}
	}
}

// Look looks after the use of the disk once. It must not be called beside Run.
func (k *Keeper) Look(ctx context.Context) error {
	k.measure()
	k.watchUplink()
	return k.makeRoom(ctx)
}

// use is what the drive takes now.
func (k *Keeper) use() space.Use { return k.useWith(k.level.Load().tables) }

// useWith is use, given what the tables take without the content of small files.
func (k *Keeper) useWith(tables int64) space.Use {
	content, unsynced := k.cfg.Tree.Local()
	fresh, left := k.cfg.Tree.Waiting()
	return space.Use{Content: content + k.cfg.Tree.Small(), Unsynced: unsynced, Waiting: fresh + left, Tables: tables}
}

// measure works the marks out anew. Content that comes or goes meanwhile is rather in
// both, the content and what the disk has free, than in neither: for want of it a
// writer would be refused for good.
func (k *Keeper) measure() {
	passed := k.cfg.Tree.CountPassed()
	before := k.onDisk()
	tables, d := k.cfg.Measure()
	tables = max(0, tables-k.cfg.Tree.Small()-k.dead.Load())
	u := k.useWith(tables)
	u.Content = max(u.Content, before)
	k.level.Store(&level{tables, passed, d, space.MarksOf(k.limit.Load(), u, d)})
}

// onDisk is how much content the disk has, or a little more.
func (k *Keeper) onDisk() int64 {
	content := k.useWith(0).Content // first: what is let go of in between counts twice, not never
	return content + k.cfg.Tree.Going()
}

// watchUplink measures the uplink, and asks it to hurry when writers wait.
func (k *Keeper) watchUplink() {
	up := k.cfg.Uplink()
	k.learnSpeed(up)
	u, l := k.use(), k.level.Load()
	if k.isMoving(up) && u.Unsynced > l.passed {
		k.wake(true) // what is being uploaded will be let go of
	}
	if up.Commit != k.seen.Commit {
		k.stuckUntil, k.backOff = time.Time{}, 0 // what it took may go
		if err := k.cfg.Tree.RecountUnsynced(); err != nil {
			k.cfg.Log.Warn("counting what is not out", "err", err)
		}
	}
	k.seen = up
}

// isMoving reports whether uploads went on since the last look: something arrived, or is
// on its way. A pack may take minutes, and who sends it sees to it that it comes on. After
// a commit failed only what arrives counts, or writers would wait for each try.
func (k *Keeper) isMoving(up Uplink) bool {
	return up.Sent > k.seen.Sent || up.Busy > k.seen.Busy && !up.Failing
}

// urge asks for a commit when writers are slowed, or wait. What the last one had to leave
// the next would leave, too: it is tried again in its own time.
func (k *Keeper) urge() {
	k.mu.Lock()
	waiting := k.waiting > 0
	k.mu.Unlock()
	fresh, _ := k.cfg.Tree.Waiting()
	if (waiting && fresh > 0 || fresh > k.level.Load().marks.Slow) && !k.seen.Failing {
		k.cfg.Urge()
	}
}

// learnSpeed takes in what went out since the last look; when nothing goes out, the
// speed is unknown.
func (k *Keeper) learnSpeed(up Uplink) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.speed.Learn(up.Sent-k.seen.Sent, up.Busy-k.seen.Busy)
	if up.Failing {
		k.speed = space.Speed{}
	}
}

// wake tells those who wait that there may be room. If something moved, their
// patience begins anew.
func (k *Keeper) wake(moved bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.full = false; moved {
		k.since, k.refused = k.cfg.Now(), time.Time{}
	}
	close(k.moved)
	k.moved = make(chan struct{})
}

func (k *Keeper) hurry() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Report is how the cache is.
type Report struct {
	Use   space.Use
	Disk  space.Disk
	Marks space.Marks
	Freed int64 // let go of since the daemon started
	Full  bool  // writers are refused
	Pins  Pins
}

// Report returns how the cache is.
func (k *Keeper) Report() Report {
	l, u := k.level.Load(), k.use()
	k.mu.Lock()
	defer k.mu.Unlock()
	u.Pinned = k.pins.Here
	return Report{Use: u, Disk: l.disk, Marks: l.marks, Freed: k.freed, Full: k.full, Pins: k.pins}
}
