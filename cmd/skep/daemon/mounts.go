package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"skep/cmd/skep/control"
	"skep/cmd/skep/home"
	"skep/fs/adapter"
	"skep/fs/mount"
)

// mounted is the drive as a folder.
type mounted struct {
	dir    string
	server mount.Server
	done   chan struct{}
	err    error // of Run; set when done is closed
}

// MountHere is MountAs for a daemon that ends with its mount: from then on it
// mounts nothing.
func (d *Daemon) MountHere(m control.Mount) (<-chan struct{}, error) {
	d.mu.Lock()
	d.forMount = true
	d.mu.Unlock()
	return d.MountAs(m)
}

// MountAs mounts the drive as a command asks for it.
func (d *Daemon) MountAs(m control.Mount) (<-chan struct{}, error) {
	if m.Cache != nil {
		if err := d.SetCache(*m.Cache); err != nil {
			return nil, err
		}
	}
	return d.show(m)
}

// isAgain reports whether a command asks for a mount that is there already, to change
// what is not of the mount: peers to join by, or the limit of the cache.
func (d *Daemon) isAgain(m control.Mount) bool {
	if m.Options != "" || len(m.Bootstrap) == 0 && m.Cache == nil {
		return false
	}
	at, err := mount.Locate("mount", m.Dir)
	d.mu.Lock()
	defer d.mu.Unlock()
	return err == nil && d.isAt(at) != nil
}

// isAt returns the mount that is at a place now, or nil. The caller holds d.mu.
func (d *Daemon) isAt(place string) *mounted {
	for _, m := range d.mounts {
		if dir, attached := m.server.Point(); attached && dir == place {
			return m
		}
	}
	return nil
}

// ErrPeerOnly says that there is nothing to mount.
var ErrPeerOnly = errors.New("this home has no drive: it is that of a storage peer (skep peer); make a drive in another one: skep init --home OTHER")

// show mounts the drive. The returned channel is closed when the mount
// is gone. A daemon that is ending returns control.ErrNotRunning.
func (d *Daemon) show(as control.Mount) (<-chan struct{}, error) {
	if d.drive == nil {
		return nil, ErrPeerOnly
	}
	dir, err := mount.Locate("mount", as.Dir)
	if err != nil {
		return nil, err
	}
	opt := mount.Options{Home: string(d.home), Source: as.Source, Log: d.log}
	if as.Options != "" {
		if err := opt.Parse(as.Options); err != nil {
			return nil, err
		}
	}
	d.awaitDetached()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ending {
		return nil, control.ErrNotRunning
	}
	for _, m := range d.mounts {
		return nil, m.inTheWay()
	}
	d.drive.tree.SetNoAtime(opt.NoAtime)
	fsys := adapter.New(d.drive.tree, adapter.Options{UID: opt.UID, GID: opt.GID, Log: d.log})
	d.clearElsewhere(dir)
	srv, err := mount.Mount(dir, fsys, opt)
	if err != nil {
		return nil, err
	}
	m := &mounted{dir: dir, server: srv, done: make(chan struct{})}
	d.mounts[dir] = m
	d.markMount(srv)
	go func() {
		m.err = srv.Run(context.Background())
		if m.err != nil {
			d.log.Error("serving the mount ended", "dir", dir, "err", m.err)
		}
		d.mu.Lock()
		delete(d.mounts, dir)
		d.ending = d.ending || d.forMount
		d.mu.Unlock()
		close(m.done)
	}()
	return m.done, nil
}

// mountFile has the mark of the newest mount.
const mountFile = "mount"

// markMount keeps the mark of a mount for who comes after this process.
func (d *Daemon) markMount(srv mount.Server) {
	m, err := srv.Mark()
	var b []byte
	if err == nil {
		b, err = json.Marshal(m)
	}
	if err == nil {
		err = d.home.WriteFile(mountFile, b)
	}
	if err != nil {
		d.log.Warn("if this process is killed, it may take the end of the mount to begin another one", "err", err)
	}
}

// LastMount is the mark of the newest mount of a home's drive; of none if it never was
// mounted.
func LastMount(h home.Dir) (m mount.Mark, err error) {
	b, err := h.ReadFile(mountFile)
	if err != nil || b == nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return mount.Mark{}, fmt.Errorf("%s: %w", h.Path(mountFile), err)
	}
	return m, nil
}

// EndKilled lets the daemon of a home end that was killed and cannot, as the kernel waits
// for an answer from it. It reports whether there was one.
func EndKilled(h home.Dir) (bool, error) {
	m, err := LastMount(h)
	if err != nil {
		return false, err
	}
	return m.EndKilled()
}

// clearElsewhere takes away what a daemon that was killed has left of its mount, unless it
// was at dir, where mounting does so.
func (d *Daemon) clearElsewhere(dir string) {
	m, err := LastMount(d.home)
	if err != nil || m.Dir == dir {
		return
	}
	switch dead, err := m.Clear(); {
	case err != nil:
		d.log.Warn("a mount that a crash had left is still there", "dir", m.Dir, "err", err)
	case dead:
		d.log.Info("cleaned up a mount that a crash had left", "dir", m.Dir)
	}
}

// inTheWay is why nothing can be mounted beside this mount.
func (m *mounted) inTheWay() error {
	if dir, attached := m.server.Point(); attached {
		return fmt.Errorf("the drive is mounted already, at %s", dir)
	}
	return fmt.Errorf("the drive was detached from %s, and is still held by programs that have files of it open, "+
		"or in another mount namespace (a container, a service); end them, or the daemon with: skep down", m.dir)
}

// Unmount takes the mount at dir away; an empty dir stands for the only one. It reports
// whether the drive is still held elsewhere, though it is not in its place any more.
func (d *Daemon) Unmount(ctx context.Context, dir string, force bool) (held bool, err error) {
	m, err := d.mountAt(dir)
	if err != nil {
		return false, err
	}
	if force {
		err = m.server.ForceUnmount()
	} else {
		err = m.server.Unmount(ctx)
	}
	switch {
	case err != nil:
		return false, err
	case m.ended(ctx, detachedPatience):
		return false, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case force:
		return false, &mount.PointError{Op: "unmount", Dir: m.dir, Reason: mount.ErrStillServing,
			Do: "end them, or the daemon with: skep down"}
	}
	return true, nil
}

// detachedPatience is how long a mount that was detached may go on answering programs
// that still hold files of it, or another mount namespace that has a copy, before that
// is said.
const detachedPatience = 5 * time.Second

// ended waits some time for the end of a mount that was detached. A daemon in the
// foreground ends with its mount: that of ctx may be the same event.
func (m *mounted) ended(ctx context.Context, patience time.Duration) bool {
	select {
	case <-m.done:
		return true
	case <-time.After(patience):
		return false
	case <-ctx.Done():
	}
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// awaitDetached waits some time for the end of mounts that were detached.
func (d *Daemon) awaitDetached() {
	d.mu.Lock()
	all := slices.Collect(maps.Values(d.mounts))
	d.mu.Unlock()
	for _, m := range all {
		if _, attached := m.server.Point(); !attached {
			m.ended(context.Background(), detachedPatience)
		}
	}
}

// places are where the drive is mounted, and from where it was detached that is still
// held somewhere.
func (d *Daemon) places() (at, held []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for dir, m := range d.mounts {
		if now, attached := m.server.Point(); attached {
			at = append(at, now)
		} else {
			held = append(held, dir)
		}
	}
	return at, held
}

func (d *Daemon) mountAt(dir string) (*mounted, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dir == "" {
		for _, m := range d.mounts {
			return m, nil
		}
		return nil, errors.New("the drive is not mounted")
	}
	if at, err := mount.Locate("unmount", dir); err == nil {
		if m := d.isAt(at); m != nil {
			return m, nil
		}
		if m := d.mounts[at]; m != nil { // detached from there, and held elsewhere
			return m, nil
		}
	}
	return nil, fmt.Errorf("%s is not a mount of this drive", dir)
}

// unmountAll takes all mounts away, by force if need be, for good.
func (d *Daemon) unmountAll() {
	d.mu.Lock()
	d.ending = true
	all := make([]*mounted, 0, len(d.mounts))
	for _, m := range d.mounts {
		all = append(all, m)
	}
	d.mu.Unlock()
	for _, m := range all {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		if err := m.server.Unmount(ctx); err != nil {
			d.log.Warn("unmounting by force", "dir", m.dir, "err", err)
			if err := m.server.ForceUnmount(); err != nil {
				d.log.Error("the mount stays behind", "dir", m.dir, "err", err)
			}
		}
		cancel()
		select {
		case <-m.done:
		case <-time.After(5 * time.Second):
		}
	}
}
