package daemon

import (
	"context"
	"errors"
	"net/http"
	"net/http/pprof"
	"os"
	"time"

	"skep/cmd/skep/control"
)

// routes are the requests that commands can make.
func (d *Daemon) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/status", control.Handler(d.status))
	mux.Handle("/v1/mount", control.Handler(d.mount))
	mux.Handle("/v1/umount", control.Handler(func(ctx context.Context, in control.Unmount) (out control.Unmounted, err error) {
		if out.Held, err = d.Unmount(ctx, in.Dir, in.Force); err != nil {
			return out, err
		}
		d.mu.Lock()
		out.Ends = d.ending
		d.mu.Unlock()
		out.Pending = d.pending()
		return out, nil
	}))
	mux.Handle("/v1/sync", control.Handler(d.sync))
	mux.Handle("/v1/pin", control.Handler(d.pin))
	mux.Handle("/v1/repair", control.Handler(func(_ context.Context, in control.Repair) (struct{}, error) {
		if d.repair == nil {
			return struct{}{}, errNoDrive
		}
		return struct{}{}, d.pauseRepair(in.Pause)
	}))
	mux.Handle("/v1/down", control.Handler(func(context.Context, struct{}) (control.Down, error) {
		d.mu.Lock()
		d.ending = true
		d.mu.Unlock()
		time.AfterFunc(50*time.Millisecond, d.Stop) // let the answer go out first
		return control.Down{Pending: d.pending(), Began: d.began, PID: os.Getpid()}, nil
	}))
	// Profiles, for those who ask why it is slow: only through the socket, only
	// for the home's owner.
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// mount mounts the drive as a command asks for it. Where it is mounted so already, what
// else the command asks for is done alone.
func (d *Daemon) mount(ctx context.Context, in control.Mount) (out control.Mounted, err error) {
	if err := d.net.joinBy(in.Bootstrap); err != nil {
		return out, err
	}
	if out.Again = d.isAgain(in); out.Again && in.Cache != nil {
		err = d.SetCache(*in.Cache)
	} else if !out.Again {
		_, err = d.MountAs(in)
	}
	if err != nil {
		return out, err
	}
	if err := d.net.contact(ctx); err != nil {
		out.Alone = err.Error()
	}
	if err := ctx.Err(); err != nil && !out.Again { // who asked has been told that it is not mounted
		_, undone := d.Unmount(context.WithoutCancel(ctx), in.Dir, false)
		return out, errors.Join(err, undone)
	}
	return out, nil
}

// pending is what is on this device only.
func (d *Daemon) pending() (p control.Pending) {
	if d.drive == nil {
		return p
	}
	var err error
	if p.Files, p.Bytes, err = d.drive.engine.Pending(); err != nil {
		d.log.Warn("how much is on this device only cannot be told", "err", err)
	}
	return p
}

// errNoDrive says that there is no drive to do anything with.
var errNoDrive = errors.New("this home has no drive: it is that of a storage peer (skep peer); name the home of a drive with --home")
