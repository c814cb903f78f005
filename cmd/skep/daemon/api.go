package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"skep/cache/blocks"
	"skep/cache/writeback"
	"skep/chunker/group"
	"skep/cmd/skep/control"
	skephost "skep/net/host"
)

// routes are the requests that commands can make.
func (d *Daemon) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/status", control.Handler(d.status))
	mux.Handle("/v1/mount", control.Handler(func(_ context.Context, in control.Mount) (struct{}, error) {
		_, err := d.MountAs(in)
		return struct{}{}, err
	}))
	mux.Handle("/v1/umount", control.Handler(func(ctx context.Context, in control.Unmount) (struct{}, error) {
		return struct{}{}, d.Unmount(ctx, in.Dir, in.Force)
	}))
	mux.Handle("/v1/sync", control.Handler(d.sync))
	mux.Handle("/v1/pin", control.Handler(d.pin))
	mux.Handle("/v1/repair", control.Handler(func(_ context.Context, in control.Repair) (struct{}, error) {
		if d.repair == nil {
			return struct{}{}, errNoDrive
		}
		d.repair.Pause(in.Pause)
		return struct{}{}, nil
	}))
	mux.Handle("/v1/down", control.Handler(func(context.Context, struct{}) (struct{}, error) {
		time.AfterFunc(50*time.Millisecond, d.Stop) // let the answer go out first
		return struct{}{}, nil
	}))
	// Profiles, for those who ask why it is slow: only through the socket, only
	// for the home's owner.
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

var errNoDrive = errors.New("this home has no drive")

// sync waits until everything that was done before is out.
func (d *Daemon) sync(ctx context.Context, in control.Sync) (struct{}, error) {
	if d.drive == nil {
		return struct{}{}, errNoDrive
	}
	if in.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, in.Timeout)
		defer cancel()
	}
	err := d.syncPatiently(ctx, in.Timeout > 0)
	var moving *writeback.MovingError
	switch {
	case err == nil || errors.As(err, &moving):
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("not everything is out yet: %s", d.missing())
	default:
		err = fmt.Errorf("not everything is out: %w", err)
	}
	if err == nil && !d.drive.recoveryOut.Load() {
		if err = d.drive.publishRecoveryOnce(ctx); err != nil {
			err = fmt.Errorf("the content is out, but the recovery record is not: the words would not bring it back yet: %w", err)
		}
	}
	d.repair.Refresh()
	return struct{}{}, err
}

// syncPatience is how long a sync without a timeout goes on trying when too few
// peers answer.
const syncPatience = 20 * time.Second

// syncPatiently tries again while too few peers answer: they may just be
// starting. A sync with a timeout of its own goes on until then.
func (d *Daemon) syncPatiently(ctx context.Context, bounded bool) error {
	begin := time.Now()
	for {
		err := d.drive.engine.Sync(ctx)
		var moving *writeback.MovingError
		if err == nil || errors.As(err, &moving) || ctx.Err() != nil {
			return err
		}
		if !bounded && time.Since(begin) > syncPatience {
			return err
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// missing says what is not out, in words.
func (d *Daemon) missing() string {
	files, bytes, _ := d.drive.tree.Pending()
	p := d.drive.engine.Progress()
	s := fmt.Sprintf("%d changes with %d bytes are on this device only", files, bytes)
	if p.LastError != "" {
		s += "; the last attempt failed: " + p.LastError
	}
	return s
}

// StatusRequest asks for the status, and that of some paths.
type StatusRequest struct {
	Paths []string `json:"paths,omitempty"`
}

func (d *Daemon) status(ctx context.Context, in StatusRequest) (control.Status, error) {
	offered, used := d.net.hosted.Room()
	s := control.Status{Version: Version, Peer: skephost.ID(d.net.self).String(), Addrs: d.net.addrs(), Home: string(d.home),
		Offered: offered, Hosting: used, Codings: []control.Coding{}, Peers: []control.Peer{}} // lists, also when empty
	shards := map[group.PeerKey]int{}
	if d.drive != nil {
		err := d.driveStatus(ctx, &s, shards)
		if damage := d.drive.st.Damage(); damage != nil {
			s.IndexDamage, err = damage.Error(), nil // the rest may be missing because of it
		}
		if err != nil {
			return s, err
		}
		for _, p := range in.Paths {
			s.Paths = append(s.Paths, d.pathStatus(ctx, p))
		}
	}
	for _, p := range d.net.peers.List() {
		if p.Key == d.net.self || p.HelloAt.IsZero() && shards[p.Key] == 0 {
			continue
		}
		state := p.State.String()
		if d.repair != nil && shards[p.Key] > 0 {
			state = d.repair.PeerState(p.Key).String()
		} else if p.State == 0 {
			state = "alive"
			if !d.net.swarm.Alive(p.Key) {
				state = "unknown"
			}
		}
		s.Peers = append(s.Peers, control.Peer{ID: skephost.ID(p.Key).String(), Addrs: skephost.FullAddrs(p.Key, p.Addrs), Region: p.Region,
			Shards: shards[p.Key], State: state, Free: p.Free, Availability: p.Availability,
			RoundTripMS: float64(p.RoundTrip.Microseconds()) / 1000, Lies: p.Strikes})
	}
	slices.SortFunc(s.Peers, func(a, b control.Peer) int { return strings.Compare(a.ID, b.ID) })
	return s, nil
}

func (d *Daemon) driveStatus(_ context.Context, s *control.Status, shards map[group.PeerKey]int) error {
	dr := d.drive
	s.Drive = dr.id.String()
	d.mu.Lock()
	for dir := range d.mounts {
		s.Mounts = append(s.Mounts, dir)
	}
	d.mu.Unlock()
	s.Files, s.Bytes = dr.tree.Usage()
	var err error
	if s.PendingFiles, s.PendingBytes, err = dr.tree.Pending(); err != nil {
		return err
	}
	if s.Read, err = dr.table.Counted(); err != nil {
		return err
	}
	p := dr.engine.Progress()
	s.Uploading, s.UploadedNow, s.LastError, s.Moving = p.Running, p.Sent, p.LastError, p.Moving
	s.IndexDone, s.IndexTotal = int64(p.IndexDone), int64(p.IndexTotal)
	s.Commit, s.CommitTime = p.Number, p.LastDone
	s.RecoveryOut = dr.recoveryOut.Load()
	plan := dr.sink.current()
	s.Plan, s.Shortfall = plan.Summary(), plan.Shortfall()
	s.Cache = dr.cacheStatus()
	return d.packStatus(s, shards)
}

// packStatus counts packs by coding, their health, and shards by holder.
func (d *Daemon) packStatus(s *control.Status, shards map[group.PeerKey]int) error {
	groups, err := d.drive.table.Groups()
	if err != nil {
		return err
	}
	type coding struct{ class, kind, k, n int }
	count := map[coding]*control.Coding{}
	byID := map[group.ID]group.Group{}
	var order []coding
	entry := func(g group.Group) *control.Coding {
		c := coding{int(g.Class), int(g.Kind), int(g.Coding.K), int(g.Coding.N)}
		if count[c] == nil {
			kind := "content"
			if g.Kind == group.Metadata {
				kind = "metadata"
			}
			count[c] = &control.Coding{Class: g.Class.String(), Kind: kind, K: c.k, N: c.n}
			order = append(order, c)
		}
		return count[c]
	}
	for _, g := range groups {
		byID[g.ID] = g
	}
	used := map[group.ID]bool{}
	err = d.drive.table.Packs(func(p blocks.Pack) bool {
		g := byID[p.Group]
		e := entry(g)
		e.Packs++
		if !used[g.ID] {
			used[g.ID] = true
			e.Groups++
		}
		for i, holder := range g.Slots {
			if p.Acked.Has(i) {
				shards[holder]++
				s.StoredBytes += int64(g.ShardSize())
			}
		}
		return true
	})
	for _, c := range order {
		s.Codings = append(s.Codings, *count[c])
	}
	r := d.repair.Report()
	s.Packs, s.PacksBelowTarget, s.PacksLost, s.PacksAtRisk = r.Packs, r.BelowTarget(), r.Lost, r.AtRisk
	s.PacksUnasked, s.AsOf = r.Unasked, r.AsOf
	s.ShardsMissing, s.Repairing, s.RepairPaused = r.Missing, r.Repairs, r.Paused
	return err
}

// relative turns a path into one below the drive's root: a path in a mount, or
// one that is below the root already.
func (d *Daemon) relative(path string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for dir := range d.mounts {
		if rel, err := filepath.Rel(dir, path); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return strings.TrimPrefix(rel, "."), nil
		}
	}
	if filepath.IsAbs(path) {
		return "", fmt.Errorf("%s is not in a mount of the drive", path)
	}
	return path, nil
}
