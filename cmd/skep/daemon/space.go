package daemon

import (
	"context"
	"sync"
	"time"

	"skep/cache/blocks"
	"skep/cache/evict"
	"skep/cache/space"
	"skep/cache/state"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/cmd/skep/control"
	"skep/cmd/skep/home"
	"skep/net/peers"
	"skep/net/place"
	"skep/repair/health"
	"skep/repair/plan"
)

// newKeeper makes what keeps the drive's local use within bounds.
func (d *drive) newKeeper(limit int64) *evict.Keeper {
	return evict.New(evict.Config{
		Tree: d.tree, Limit: limit, Measure: d.measure, Uplink: d.uplink, Urge: d.engine.Urge, Compact: d.compact, Now: time.Now, Log: d.log,
	})
}

// measure tells what the tables take, and how the disk is.
func (d *drive) measure() (tables int64, disk space.Disk) {
	var err error
	if disk.Size, disk.Free, err = d.files.Disk(); err != nil {
		d.log.Warn("how full the disk is cannot be told", "err", err)
	}
	d.stock()
	offered, used := d.net.hosted.Room()
	disk.Promised = max(0, offered-used)
	return d.st.JournalSize() + d.st.Ballast() + d.indexSize() + d.packs.Bytes(), disk
}

// ballastShare is which part of the cache is held for when the disk is full, as far
// as that is worth it.
const ballastShare = 10

// stock holds room for when the disk is full.
func (d *drive) stock() {
	if d.keeper == nil {
		return
	}
	if err := d.st.Stock(min(state.BallastMax, d.keeper.Report().Marks.Limit/ballastShare)); err != nil {
		d.log.Debug("no room is held for when the disk is full", "err", err)
	}
}

// indexEvery is how often the files of the index are looked at.
const indexEvery = 5 * time.Second

// indexSize is what the index takes, as of some seconds ago.
func (d *drive) indexSize() int64 {
	d.indexMu.Lock()
	defer d.indexMu.Unlock()
	if time.Since(d.indexAt) > indexEvery {
		d.indexBytes, d.indexAt = d.st.IndexSize(), time.Now()
	}
	return d.indexBytes
}

// indexMeasure is the size of the index as measured last.
type indexMeasure struct {
	indexMu    sync.Mutex // guards both
	indexBytes int64
	indexAt    time.Time
}

// compact has the room of rows that were deleted given back, and then the index measured
// anew, before done is told.
func (d *drive) compact(done func(error)) {
	d.tree.CompactSmall(func(err error) {
		d.indexMu.Lock()
		d.indexAt = time.Time{}
		d.indexMu.Unlock()
		done(err)
	})
}

func (d *drive) uplink() evict.Uplink {
	p := d.engine.Progress()
	sent, busy := d.engine.Uplink()
	return evict.Uplink{Commit: p.Number, Sent: sent, Busy: busy, Failing: p.Failing()}
}

// capacity is what df tells.
func (d *drive) capacity() (total, avail int64) {
	if d.keeper == nil {
		return 0, 0 // the drive is being opened
	}
	_, used := d.tree.Usage()
	r, swarm := d.keeper.Report(), d.sink.room()
	swarm.Takes = swarm.Takes && !d.uplink().Failing
	room := space.RoomOf(used, r.Use, r.Marks, swarm, r.Full)
	return room.Total, room.Free
}

// room is what the peers could still take, as far as they have said: those that
// are silent now said so before, perhaps to an earlier run.
func (s *sink) room() space.Swarm {
	var known []place.Candidate
	for _, p := range s.n.peers.List() {
		if p.Key == s.n.self || p.HelloAt.IsZero() || p.Offered <= 0 || p.Barred || p.State == peers.Dead {
			continue
		}
		known = append(known, p.Candidate(0))
	}
	if len(known) == 0 {
		return space.Swarm{}
	}
	return space.Swarm{Known: true, Free: s.storable(known), Takes: s.current().Peers > 0}
}

// storable is what the known peers could store, as of what they said last.
func (s *sink) storable(known []place.Candidate) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev := s.n.peers.Revision(); rev != s.freeSeen || len(known) != s.freePeers {
		s.free, s.freeSeen, s.freePeers = plan.Storable(contentClass, known), rev, len(known)
	}
	return s.free
}

// heldPatience is how long it may take to find out where content lies.
const heldPatience = 5 * time.Second

// held returns nil if chunks of a committed file are with holders enough for what is
// here to be let go of.
func (d *drive) held(ctx context.Context, f dag.File, from, to int64) error {
	ctx, cancel := context.WithTimeout(ctx, heldPatience)
	defer cancel()
	online := health.Online(d.net.peers.List(), d.net.self, time.Now())
	return d.reader.Held(ctx, f, from, to, func(g group.Group, p blocks.Pack) error { return d.evidence(g, p, online).Held() })
}

// evidence is what is known of a pack and its holders.
func (d *drive) evidence(g group.Group, p blocks.Pack, online bool) health.Evidence {
	e := health.Evidence{Coding: g.Coding, Enough: plan.Enough(g.Coding), Online: online}
	e.Pack, _ = d.packHealth(g.ID, p.Number)
	for i, key := range g.Slots {
		if p.Acked.Has(i) {
			holder, _ := d.net.peers.Get(key)
			e.Holders = append(e.Holders, holder)
		}
	}
	return e
}

// cacheStatus tells how much of this device the drive takes.
func (d *drive) cacheStatus() control.Cache {
	r := d.keeper.Report()
	_, bytes := d.tree.Usage()
	here := d.tree.Here()
	return control.Cache{
		Limit: r.Marks.Limit, Setting: d.keeper.Limit(), Reserve: r.Marks.Reserve,
		Used: r.Use.Total(), Content: r.Use.Content, Unsynced: r.Use.Unsynced, Tables: r.Use.Tables,
		Here: here, Evicted: bytes - here, Freed: r.Freed, Full: r.Full,
		Pinned: r.Pins.Bytes, PinnedHere: r.Pins.Here, PinnedAsOf: r.Pins.At, PinsTooBig: r.Pins.TooLarge,
		JournalBytes: d.st.JournalSize(), DiskFree: r.Disk.Free,
	}
}

// SetCache changes the limit of the cache, now and for later runs.
func (d *Daemon) SetCache(limit int64) error {
	if d.drive == nil {
		return errNoDrive
	}
	if err := d.changeSettings(func(s *home.Settings) { s.Cache = limit }); err != nil {
		return err
	}
	d.drive.keeper.SetLimit(limit)
	return nil
}
