package daemon

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"skep/cache/reseal"
	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/cmd/skep/control"
	"skep/cmd/skep/home"
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
	began    time.Time
	unlock   func()
	looking  sync.Mutex                   // held while all is looked through for what holders have lost
	lost     atomic.Pointer[reseal.Found] // by the newest such look; nil before it
	listener net.Listener
	changing sync.Mutex // held while the settings of the home are changed

	mu       sync.Mutex // guards all below
	mounts   map[string]*mounted
	stop     context.CancelFunc
	ending   bool // nothing is mounted any more
	left     control.Pending
	forMount bool // the daemon ends with its mount
}

// Format hides keys, and what leads to them, from every formatting verb.
func (*Daemon) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "daemon.Daemon(…)") }

// Open makes a daemon ready to run: nothing listens to commands or joins the
// swarm yet. Extra bootstrap addresses are added to those of the settings. It returns
// when ctx ends, too; what is opened by then is closed behind it.
func Open(ctx context.Context, h home.Dir, keys keyring.Local, bootstrap []string, log *slog.Logger) (*Daemon, error) {
	type outcome struct {
		d   *Daemon
		err error
	}
	opened := make(chan outcome, 1)
	go func() {
		d, err := open(ctx, h, keys, bootstrap, log)
		opened <- outcome{d, err}
	}()
	select {
	case o := <-opened:
		return o.d, o.err
	case <-ctx.Done():
	}
	go func() {
		if o := <-opened; o.err == nil {
			o.d.close()
		}
	}()
	return nil, ctx.Err()
}

// lockPatience is how long a home may be locked by somebody who only looks whether it is.
const lockPatience = time.Second

// lock keeps other daemons out of a home.
func lock(ctx context.Context, h home.Dir) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		if release, err = h.Lock(); !errors.Is(err, home.ErrInUse) {
			return release, err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func open(ctx context.Context, h home.Dir, keys keyring.Local, bootstrap []string, log *slog.Logger) (_ *Daemon, err error) {
	d := &Daemon{home: h, log: log, began: time.Now(), mounts: map[string]*mounted{}}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.settings, err = h.Settings(); err != nil {
		return d, err
	}
	if d.unlock, err = lock(ctx, h); err != nil {
		return d, err
	}
	d.settings.Bootstrap = append(bootstrap, d.settings.Bootstrap...)
	if d.net, err = newNetwork(h, d.settings, keys.Signer(), log); err != nil {
		return d, err
	}
	if d.settings.Drive != "" {
		if d.drive, err = openDrive(ctx, h, d.settings, keys, d.net, log); err != nil {
			return d, err
		}
		d.repair = newRepair(d)
		d.drive.health, d.drive.alone, d.drive.presume = d.repair.PackHealth, d.repair.OnlyHere, d.repair.Presume
	}
	if d.listener, err = control.Listen(h.Socket()); err != nil {
		return d, err
	}
	return d, nil
}

// Addrs are the full addresses under which other peers can reach this one.
func (d *Daemon) Addrs() []string { return d.net.addrs() }

// Answers returns a channel that is closed when a daemon that runs answers other peers.
func (d *Daemon) Answers() <-chan struct{} { return d.net.holder.Answers() }

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

	d.net.first.expect()
	var running errgroup.Group
	for _, one := range d.services() {
		running.Go(func() error {
			if err := one.run(ctx); err != nil && ctx.Err() == nil {
				d.log.Error("a service ended", "service", one.name, "err", err)
				cancel()
				return fmt.Errorf("%s: %w", one.name, err)
			}
			return nil
		})
	}
	<-ctx.Done()
	d.unmountAll()
	err := running.Wait()
	left := d.pending()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = left
	return err
}

// Left is what was on this device only when Run returned.
func (d *Daemon) Left() control.Pending {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.left
}

// service is a part of a daemon that runs until ctx ends.
type service struct {
	name string
	run  func(ctx context.Context) error
}

// services are all that the daemon runs.
func (d *Daemon) services() []service {
	all := append(d.net.services(), service{"control", d.serveControl})
	if d.drive == nil {
		return all
	}
	all = append(all, d.drive.services()...)
	return append(all, service{"repair", d.repair.Run}, service{"health", d.saveHealth}, service{"lost content", d.watchLost})
}

// changeSettings changes what later runs find in the settings of the home.
func (d *Daemon) changeSettings(change func(*home.Settings)) error {
	d.changing.Lock()
	defer d.changing.Unlock()
	s, err := d.home.Settings()
	if err != nil {
		return err
	}
	change(&s)
	return d.home.SaveSettings(s)
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
