package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"skep/cache/blocks"
	"skep/chunker/devices"
	"skep/chunker/group"
	"skep/cmd/skep/control"
	"skep/cmd/skep/say"
	skephost "skep/net/host"
	"skep/net/peers"
)

// StatusRequest asks for the status, and that of some paths.
type StatusRequest struct {
	Paths [][]byte `json:"paths,omitempty"` // a name is bytes, not text
}

func (d *Daemon) status(ctx context.Context, in StatusRequest) (control.Status, error) {
	offered, used := d.net.hosted.Room()
	s := control.Status{Version: Version, Began: d.began, Peer: skephost.ID(d.net.self).String(), Addrs: d.net.addrs(), Home: string(d.home),
		Offered: offered, Hosting: used, Codings: []control.Coding{}, Peers: []control.Peer{}} // lists, also when empty
	shards := map[group.PeerKey]int{}
	ended, _ := d.net.first.outcome()
	s.Joining = !ended
	if d.drive != nil {
		err := d.driveStatus(&s, shards)
		if damage := d.drive.st.Damage(); damage != nil {
			s.IndexDamage, err = damage.Error(), nil // the rest may be missing because of it
		}
		if err != nil {
			return s, err
		}
	}
	for _, p := range in.Paths {
		s.Paths = append(s.Paths, d.pathStatus(ctx, string(p)))
	}
	s.Peers = append(s.Peers, d.peerStatus(shards)...)
	return s, nil
}

// peerStatus tells of the peers that answered once, or hold shards of the drive.
func (d *Daemon) peerStatus(shards map[group.PeerKey]int) (out []control.Peer) {
	for _, p := range d.net.peers.List() {
		if p.Key == d.net.self || p.HelloAt.IsZero() && shards[p.Key] == 0 {
			continue
		}
		out = append(out, control.Peer{ID: skephost.ID(p.Key).String(), Addrs: skephost.FullAddrs(p.Key, p.Addrs), Region: p.Region,
			Shards: shards[p.Key], State: d.stateOf(p, shards[p.Key] > 0).String(), Free: p.Free, Availability: p.Availability,
			RoundTripMS: float64(p.RoundTrip.Microseconds()) / 1000, Lies: p.Strikes})
	}
	slices.SortFunc(out, func(a, b control.Peer) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// stateOf is what is thought of a peer, in a word.
func (d *Daemon) stateOf(p peers.Peer, holds bool) peers.State {
	state := p.State
	if d.repair != nil && holds {
		state = heldState(d.repair.PeerState(p.Key), p, d.began)
	}
	if state == peers.Alive && (p.Misses > 0 || !d.net.swarm.Alive(p.Key)) {
		return peers.Suspect // it did not answer just now
	}
	return state
}

// heldState is the state of a holder: what repair thinks of it, or, where that has not
// met it yet, what the directory does, if the peer was heard of in this run.
func heldState(judged peers.State, p peers.Peer, began time.Time) peers.State {
	if judged == peers.Unknown && p.LastSeen.After(began) {
		return p.State
	}
	return judged
}

func (d *Daemon) driveStatus(s *control.Status, shards map[group.PeerKey]int) error {
	dr := d.drive
	s.Drive = dr.id.String()
	s.Mounts, s.Held = d.places()
	s.Files, s.Bytes = dr.tree.Usage()
	var err error
	if s.PendingFiles, s.PendingBytes, err = dr.engine.Pending(); err != nil {
		return err
	}
	if s.Read, err = dr.table.Counted(); err != nil {
		return err
	}
	p := dr.engine.Progress()
	s.Uploading, s.UploadedNow, s.LastError, s.Moving, s.Unread = p.Running, p.Sent, p.LastError, p.Moving, p.Unread
	if p.NoRoom {
		s.SwarmFull = d.swarmFull()
	}
	s.IndexDone, s.IndexTotal = int64(p.IndexDone), int64(p.IndexTotal)
	s.IndexUnread = p.IndexUnread
	s.Commit, s.CommitTime = p.Number, p.LastDone
	s.RecoveryOut = dr.recoveryOut.Load()
	dr.othersStatus(s)
	s.Unneeded, s.UnneededBytes = p.Waiting, p.WaitingBytes
	if p.Waiting > 0 {
		s.UnneededUntil = dr.unneededUntil()
	}
	plan := dr.sink.renewed()
	f, err := dr.frailty()
	if err != nil {
		return err
	}
	s.Plan, s.Shortfall = plan.Summary(), plan.Shortfall(f.Loss)
	s.PacksWeak, s.PacksFrail = f.Weak, f.Frail
	s.Cache = dr.cacheStatus()
	return d.packStatus(s, shards)
}

// othersStatus tells whether other commits of the drive are known than those here.
func (d *drive) othersStatus(s *control.Status) {
	if back := d.setBack.Load(); back != nil {
		s.SetBack = back.Error()
	}
	if err := d.overtaken(); err != nil {
		s.Overtaken = err.Error()
	}
	var others *devices.OthersError
	if o := d.outlook.Load(); o != nil && errors.As(o.err, &others) {
		s.Others = others.Error()
	}
}

// unneededUntil says when packs are given up that nothing needs any more.
func (d *drive) unneededUntil() string {
	o := d.outlook.Load()
	switch {
	case o == nil || o.err == nil:
		return "their room comes back within " + say.About(d.lookEvery/sooner) + ", once it is known that no other device needs them"
	case errors.As(o.err, new(*devices.OthersError)):
		return "their room comes back when it is known that no other device needs them"
	}
	return "their room comes back when it is known that no other device needs them, which cannot be told now: " + o.err.Error()
}

// packStatus counts packs by coding, their health, and shards by holder.
func (d *Daemon) packStatus(s *control.Status, shards map[group.PeerKey]int) error {
	groups, err := d.drive.table.Groups()
	if err != nil {
		return err
	}
	c := codings{groups: map[group.ID]group.Group{}, used: map[group.ID]bool{}, by: map[coding]*control.Coding{}}
	for _, g := range groups {
		c.groups[g.ID] = g
	}
	if s.FormerHolders, err = formerHolders(d.drive.table, groups); err != nil {
		return err
	}
	err = d.drive.table.Packs(func(p blocks.Pack) bool {
		g := c.count(p)
		for i, holder := range g.Slots {
			if p.Acked.Has(i) {
				shards[holder]++
				s.StoredBytes += int64(g.ShardSize())
			}
		}
		return true
	})
	for _, k := range c.order {
		s.Codings = append(s.Codings, *c.by[k])
	}
	r := d.repair.Report()
	s.Packs, s.PacksBelowTarget, s.PacksLost, s.PacksAway, s.PacksOnlyHere, s.PacksAtRisk = r.Packs, r.BelowTarget(), r.Lost, r.Away, r.OnlyHere, r.AtRisk
	if f := d.lost.Load(); f != nil {
		s.Lost, s.LostElsewhere = f.Gone, f.Elsewhere
	}
	s.PacksUnasked, s.AsOf, s.Holders, s.Asked = r.Unasked, r.AsOf, r.Holders, r.Asked
	s.ShardsMissing, s.Repairing, s.RepairPaused = r.Missing, r.Repairs, r.Paused
	return err
}

// formerHolders is how many holders are still to delete what they have of a slot that
// they lost, over these groups of a table and those that were let go of.
func formerHolders(table *blocks.Table, groups []group.Group) (n int, err error) {
	for _, g := range groups {
		n += len(g.Former)
	}
	gone, err := table.LetGoOf()
	for _, l := range gone {
		n += len(l.Group.Former)
	}
	return n, err
}

// codings counts packs and groups by how they are coded.
type codings struct {
	groups map[group.ID]group.Group
	used   map[group.ID]bool // groups of packs that were counted
	by     map[coding]*control.Coding
	order  []coding // as they were met
}

type coding struct{ class, kind, k, n int }

// count counts a pack, and returns its group.
func (c *codings) count(p blocks.Pack) group.Group {
	g := c.groups[p.Group]
	k := coding{int(g.Class), int(g.Kind), int(g.Coding.K), int(g.Coding.N)}
	if c.by[k] == nil {
		kind := "content"
		if g.Kind == group.Metadata {
			kind = "metadata"
		}
		c.by[k] = &control.Coding{Class: g.Class.String(), Kind: kind, K: k.k, N: k.n}
		c.order = append(c.order, k)
	}
	c.by[k].Packs++
	if !c.used[g.ID] {
		c.used[g.ID] = true
		c.by[k].Groups++
	}
	return g
}
