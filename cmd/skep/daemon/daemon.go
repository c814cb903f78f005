package daemon

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/cmd/skep/control"
	"skep/cmd/skep/home"
	"skep/fs/adapter"
	"skep/fs/mount"
	"skep/repair/run"
)

// Version of the program.
const Version = "0.1.0"

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func deviceKey(keys keyring.Local) group.PeerKey {
	return group.PeerKey(keys.Signer().Public().(ed25519.PublicKey))
}

// Daemon serves one home.
type Daemon struct {
	home     home.Dir
	settings home.Settings
	net      *network
	drive    *drive    // nil on a peer without one
	repair   *run.Loop // nil on a peer without a drive
	log      *slog.Logger
	unlock   func()
	listener net.Listener

	mu     sync.Mutex // guards mounts and stop
	mounts map[string]*mounted
	stop   context.CancelFunc
}

// mounted is the drive as a folder.
type mounted struct {
	dir    string
	server mount.Server
	done   chan struct{}
	err    error // of Run; set when done is closed
}

// Open makes a daemon ready to run: nothing listens to commands or joins the
// swarm yet. Extra bootstrap addresses are added to those of the settings.
func Open(h home.Dir, keys keyring.Local, bootstrap []string, log *slog.Logger) (_ *Daemon, err error) {
	d := &Daemon{home: h, log: log, mounts: map[string]*mounted{}}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.settings, err = h.Settings(); err != nil {
		return d, err
	}
	if d.unlock, err = h.Lock(); err != nil {
		return d, err
	}
	d.settings.Bootstrap = append(bootstrap, d.settings.Bootstrap...)
	if d.net, err = newNetwork(h, d.settings, keys.Signer(), log); err != nil {
		return d, err
	}
	if d.settings.Drive != "" {
		if d.drive, err = openDrive(h, d.settings, keys, d.net, log); err != nil {
			return d, err
		}
		d.repair = newRepair(d)
	}
	if d.listener, err = control.Listen(h.Socket()); err != nil {
		return d, err
	}
	return d, nil
}

// Addrs are the full addresses under which other peers can reach this one.
func (d *Daemon) Addrs() []string { return d.net.addrs() }

// memoryLimit is what the runtime tries to keep a daemon's memory below, unless
// GOMEMLIMIT says otherwise: a drive's daemon, and a peer without one.
const (
	memoryLimit     = 200 << 20
	peerMemoryLimit = 100 << 20
)

// limitMemory tells the runtime the limit.
func (d *Daemon) limitMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := int64(peerMemoryLimit)
	if d.drive != nil {
		limit = memoryLimit
	}
	debug.SetMemoryLimit(limit)
}

// Run serves until ctx ends or somebody asks the daemon to end. The mounts are
// gone when it returns.
func (d *Daemon) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.mu.Lock()
	d.stop = cancel
	d.mu.Unlock()
	defer d.close()
	d.limitMemory()

	var services errgroup.Group
	serve := func(name string, fn func(context.Context) error) {
		services.Go(func() error {
			if err := fn(ctx); err != nil && ctx.Err() == nil {
				d.log.Error("a service ended", "service", name, "err", err)
				cancel()
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	serve("holder", d.net.holder.Run)
	d.net.first.expect()
	serve("joining the swarm", func(ctx context.Context) error {
		if err := d.net.join(ctx); err != nil {
			d.log.Warn("not connected to the swarm yet; trying on", "err", err)
		}
		return d.net.stayJoined(ctx)
	})
	serve("survey of peers", d.net.survey.Run)
	serve("known peers", d.net.savePeers)
	serve("control", d.serveControl)
	if d.drive != nil {
		serve("journal", d.drive.tree.Run)
		serve("write-back", d.drive.engine.Run)
		serve("cache", d.drive.keeper.Run)
		serve("pins", d.drive.keeper.KeepPins)
		serve("records", d.drive.keepFindable)
		serve("leases", d.drive.keepWanted)
		serve("sweep", func(ctx context.Context) error {
			if err := d.drive.tree.Sweep(ctx); err != nil && ctx.Err() == nil {
				d.log.Warn("sweeping backing files", "err", err)
			}
			return nil
		})
		serve("repair", d.repair.Run)
		serve("health", d.saveHealth)
	}
	<-ctx.Done()
	d.unmountAll()
	return services.Wait()
}

// Stop makes Run return.
func (d *Daemon) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stop != nil {
		d.stop()
	}
}

// close ends what Open began, in reverse.
func (d *Daemon) close() {
	if d.listener != nil {
		_ = d.listener.Close()
	}
	if d.drive != nil {
		d.drive.close()
	}
	if d.net != nil {
		d.net.close()
	}
	if d.unlock != nil {
		d.unlock()
	}
}

// serveControl answers commands until ctx ends.
func (d *Daemon) serveControl(ctx context.Context) error {
	srv := &http.Server{Handler: d.routes(), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = srv.Shutdown(last)
	}()
	err := srv.Serve(d.listener)
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
		<-stopped
		return nil
	}
	return err
}

// MountAs mounts the drive as a command asks for it.
func (d *Daemon) MountAs(m control.Mount) (<-chan struct{}, error) {
	if m.Cache != nil {
		if err := d.SetCache(*m.Cache); err != nil {
			return nil, err
		}
	}
	return d.Mount(m.Dir, m.Options)
}

// Mount shows the drive at dir. The returned channel is closed when the mount
// is gone.
func (d *Daemon) Mount(dir, options string) (<-chan struct{}, error) {
	if d.drive == nil {
		return nil, errors.New("this home has no drive: it is a storage peer; make one with skep init")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	opt := mount.Options{Home: string(d.home), Log: d.log}
	if options != "" {
		if err := opt.Parse(options); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.mounts) > 0 {
		for at := range d.mounts {
			return nil, fmt.Errorf("the drive is mounted already, at %s", at)
		}
	}
	d.drive.tree.SetNoAtime(opt.NoAtime)
	fsys := adapter.New(d.drive.tree, adapter.Options{UID: opt.UID, GID: opt.GID, Log: d.log})
	srv, err := mount.Mount(dir, fsys, opt)
	if err != nil {
		return nil, err
	}
	m := &mounted{dir: dir, server: srv, done: make(chan struct{})}
	d.mounts[dir] = m
	go func() {
		m.err = srv.Run(context.Background())
		if m.err != nil {
			d.log.Error("serving the mount ended", "dir", dir, "err", m.err)
		}
		d.mu.Lock()
		delete(d.mounts, dir)
		d.mu.Unlock()
		close(m.done)
	}()
	return m.done, nil
}

// Unmount takes the mount at dir away; an empty dir stands for the only one.
func (d *Daemon) Unmount(ctx context.Context, dir string, force bool) error {
	m, err := d.mountAt(dir)
	if err != nil {
		return err
	}
	if force {
		err = m.server.ForceUnmount()
	} else {
		err = m.server.Unmount(ctx)
	}
	if err != nil {
		return err
	}
	if force {
		return m.ended(forcePatience)
	}
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-m.done: // a daemon in the foreground ends with its mount
		return nil
	default:
		return ctx.Err()
	}
}

// forcePatience is how long a mount that was detached by force may go on
// answering programs that still hold files of it.
const forcePatience = 3 * time.Second

// ended waits some time for the end of a mount that was detached.
func (m *mounted) ended(patience time.Duration) error {
	select {
	case <-m.done:
		return nil
	case <-time.After(patience):
		return &mount.PointError{Op: "unmount", Dir: m.dir, Reason: mount.ErrStillServing,
			Do: "end them, or the daemon with: skep down"}
	}
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
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if m, ok := d.mounts[abs]; ok {
		return m, nil
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		if m, ok := d.mounts[real]; ok {
			return m, nil
		}
	}
	return nil, fmt.Errorf("%s is not a mount of this drive", dir)
}

// unmountAll takes all mounts away, by force if need be.
func (d *Daemon) unmountAll() {
	d.mu.Lock()
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

// NewLog returns the daemon's log on a file.
func NewLog(w *os.File, debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug || os.Getenv("SKEP_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
