package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"skep/fs/mount"
	"skep/test/model"
	"skep/test/served"
)

// Served is a drive on a mount, whose server is a process of its own that can
// be killed and started again.
type Served struct {
	model.Mount
	dir    string // of all that it has
	conf   served.Config
	server *served.Server
}

// NewServed makes a new drive in a directory and serves it.
func NewServed(dir string, passthrough bool) (*Served, error) {
	return newServed(dir, filepath.Join(dir, "home"), passthrough, "")
}

// newServed makes a new drive, whose home may be elsewhere and whose server may
// be broken.
func newServed(dir, home string, passthrough bool, without omission) (*Served, error) {
	d, err := servedAt(dir, home, passthrough, without)
	if err == nil {
		err = empty(home, d.holders())
	}
	if err == nil {
		err = d.Start()
	}
	return d, err
}

// servedAt is a drive that is there already, and is not served yet.
func servedAt(dir, home string, passthrough bool, without omission) (*Served, error) {
	d := &Served{dir: dir, conf: served.Config{Dir: filepath.Join(dir, "drive"), Home: home, Passthrough: passthrough}}
	d.Root, d.Maintain = d.conf.Dir, d.maintain
	var err error
	if d.conf.More, err = json.Marshal(more{Holders: d.holders(), Without: without.at(home)}); err != nil {
		return nil, err
	}
	for _, sub := range []string{d.conf.Dir, home, d.holders()} {
		err = errors.Join(err, os.MkdirAll(sub, 0o700))
	}
	return d, err
}

// holders is the directory of what commits took.
func (d *Served) holders() string { return filepath.Join(d.dir, "holders") }

// empty takes away what an earlier drive left, but for the folders of its
// backing files: to make them anew is most of the work of a short case.
func empty(home, holders string) error {
	files, err := filepath.Glob(filepath.Join(home, "files", "*", "*"))
	for _, f := range files {
		err = errors.Join(err, os.Remove(f))
	}
	err = errors.Join(err, os.RemoveAll(filepath.Join(home, "state")), os.RemoveAll(holders))
	return errors.Join(err, os.Mkdir(holders, 0o700))
}

// Start begins to serve.
func (d *Served) Start() (err error) {
	d.server, err = served.Start(d.conf)
	return err
}

// maintain has the server do what programs cannot.
func (d *Served) maintain(op model.Op) error {
	return d.server.Command(fmt.Sprintf("%v %s", op.Kind, op.Path))
}

// part is a directory of the drive that is used as if it were all of it, beside
// others. The directory must not be moved.
func (d *Served) part(dir string) *model.Mount {
	return &model.Mount{Root: filepath.Join(d.conf.Dir, dir), Maintain: func(op model.Op) error {
		op.Path = model.Join(dir, op.Path)
		return d.maintain(op)
	}}
}

// KillAt has the server kill itself when it is about to do the n-th thing from
// now on that outlives it: a write, a flush, a name made or removed.
func (d *Served) KillAt(n int) error { return d.server.Command(fmt.Sprintf("kill %d", n)) }

// Kill kills the server, if it did not do so itself, and takes the dead mount
// away.
func (d *Served) Kill() {
	d.server.Kill()
	d.CloseAll()
	_ = mount.ForceUnmount(d.conf.Dir)
}

// Stop unmounts in order.
func (d *Served) Stop() error {
	d.CloseAll()
	if err := mount.Unmount(ctx, d.conf.Dir); err != nil {
		return err
	}
	return d.server.Wait()
}

// End ends everything.
func (d *Served) End() {
	d.CloseAll()
	d.server.End()
}

// gone reports whether a result is that of a server which is not there.
func gone(op model.Op, r model.Result) bool {
	switch r.Errno {
	case unix.ENOTCONN, unix.ECONNABORTED:
		return true
	case unix.EFAULT: // the kernel did not get what it was to store into
		return stores(op) || op.Kind == model.LoadMapped
	case unix.EIO, unix.EPIPE: // it was told, or would have been, and did not answer
		return op.Kind == model.Sync || op.Kind >= model.Commit || stores(op)
	}
	return false
}

// isDead reports whether the server is not there, as the next call finds: one that is
// killed while it answers leaves EIO.
func (d *Served) isDead() bool {
	for range 1000 {
		var st unix.Statfs_t
		if unix.Statfs(d.conf.Dir, &st) == unix.ENOTCONN {
			return true
		}
		time.Sleep(time.Millisecond) // it may be ending
	}
	return false
}

func stores(op model.Op) bool {
	return op.Kind == model.Store || op.Kind == model.StoreTo || op.Kind == model.StoreMapped
}

// Kill says when a server is killed: at the n-th thing that it does to its disk,
// or else at a time.
type Kill struct {
	At    int
	After time.Duration
}

func (k Kill) String() string {
	if k.At > 0 {
		return fmt.Sprintf("killed at event %d", k.At)
	}
	return fmt.Sprintf("killed after %v", k.After)
}

// RunKilled does a case on a mount, kills the server, starts another, and says
// whether what it shows may be there. It reports whether the server was killed
// before the case was over.
func RunKilled(dir string, c Case, kill Kill, without omission) (met bool, err error) {
	d, err := newServed(dir, filepath.Join(dir, "home"), c.Passthrough, without)
	if err != nil {
		return false, err
	}
	defer d.End()
	m := model.New()
	for _, op := range c.Setup {
		m.Do(op)
		if r := d.Do(op); r.Errno != 0 {
			return false, fmt.Errorf("preparing: %v: %v", op, r)
		}
	}
	if kill.At > 0 {
		err = d.KillAt(kill.At)
	} else {
		server := d.server
		defer time.AfterFunc(kill.After, server.Shoot).Stop()
	}
	if err != nil {
		return false, err
	}
	h, acknowledged, err := d.untilKilled(c, m)
	if err != nil {
		return false, err
	}
	d.Kill()
	for _, when := range []string{"", "started again: "} {
		if err := d.Start(); err != nil {
			return true, fmt.Errorf("%sdoes not start: %w", when, err)
		}
		l, err := d.List()
		if err == nil {
			err = h.AfterKill(l, acknowledged)
		}
		if err == nil {
			err = d.Stop()
		}
		if err != nil {
			return true, fmt.Errorf("%safter operation %d: %w", when, acknowledged, err)
		}
	}
	return acknowledged < len(c.Ops), nil
}

// untilKilled does the operations of a case until the server is gone, and tells
// how many it acknowledged.
func (d *Served) untilKilled(c Case, m *model.Tree) (*History, int, error) {
	h := NewHistory(m.Listing())
	for i, op := range c.Ops {
		file := m.FileOf(op)
		want := m.Do(op)
		got := d.Do(op)
		h.Add(op, want, file, m)
		if got.Errno != want.Errno && (gone(op, got) || got.Errno == unix.EIO && d.isDead()) {
			return h, i, nil
		}
		if got.Errno != want.Errno {
			return h, i, fmt.Errorf("operation %d: %v, want %v", i+1, got, want)
		}
	}
	return h, len(c.Ops), nil
}

// ShrinkKilled leaves out operations as long as the case goes on failing at any
// event.
func ShrinkKilled(dir string, c Case, kill Kill, err error) (Case, Kill, error) {
	c.Ops = fewest(c.Ops, func(ops []model.Op) bool {
		for at := 1; ; at++ {
			met, serr := RunKilled(dir, Case{c.Passthrough, c.Setup, ops}, Kill{At: at}, "")
			if serr != nil {
				kill, err = Kill{At: at}, serr
			}
			if serr != nil || !met {
				return serr != nil
			}
		}
	})
	return c, kill, err
}

// someKill is one at random: mostly while a case of so many operations goes on.
func someKill(r *rand.Rand, ops int) Kill {
	if r.IntN(4) == 0 {
		return Kill{After: time.Duration(r.IntN(3000*ops)) * time.Microsecond}
	}
	return Kill{At: 1 + r.IntN(ops+2)}
}
