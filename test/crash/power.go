package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"skep/test/blockdev"
	"skep/test/memdisk"
	"skep/test/model"
)

// deviceSize is that of the disk that a home is on.
const deviceSize = 32 << 20

// servedAgain is how many images are looked at for each that is served on a
// mount.
const servedAgain = 40

// Power does cases on a mount, with the home on an ext4 of its own on a block
// device, and takes the power from that.
type Power struct {
	Rand *rand.Rand
	// Most is how many images of a case are looked at.
	Most int
	// Quiet leaves it to the programs alone to have anything flushed.
	Quiet bool
	// Without is what the server leaves out.
	Without omission

	// What was done so far.
	Cases, Images, States int

	dir      string
	dev      *blockdev.Device
	empty    blockdev.Image
	prepared map[string]prepared
	seen     map[uint64]bool
}

// prepared is what there is before a case.
type prepared struct {
	image   blockdev.Image
	holders *holders
}

// NewPower returns a tester that works in a directory until it is closed.
func NewPower(dir string, r *rand.Rand, most int) (*Power, error) {
	x := &Power{Rand: r, Most: most, dir: dir, prepared: map[string]prepared{}}
	for _, sub := range []string{"device", "disk"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	if x.dev, err = blockdev.New(filepath.Join(dir, "device"), deviceSize); err != nil {
		return nil, err
	}
	if err := x.dev.Format(); err != nil {
		return nil, errors.Join(err, x.dev.Close())
	}
	x.empty = x.dev.Image()
	return x, nil
}

// Close takes the device away.
func (x *Power) Close() error { return x.dev.Close() }

func (x *Power) disk() string { return filepath.Join(x.dir, "disk") }
func (x *Power) home() string { return filepath.Join(x.disk(), "home") }

// mounted does something while the device holds an image, and is mounted.
func (x *Power) mounted(m blockdev.Image, do func() error) error {
	if err := x.dev.Load(m); err != nil {
		return err
	}
	if err := x.dev.Mount(x.disk()); err != nil {
		return err
	}
	return errors.Join(do(), x.unmount())
}

// unmount waits until the kernel has let go of what a server that is gone had
// open.
func (x *Power) unmount() error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		err := unix.Unmount(x.disk(), 0)
		if err != unix.EBUSY || time.Now().After(end) {
			return err
		}
	}
}

// Run does one case and takes the power away at some of its moments. It returns
// the first state that is not allowed.
func (x *Power) Run(c Case) error {
	x.Cases++
	before, err := x.prepare(c)
	if err != nil {
		return fmt.Errorf("preparing: %w", err)
	}
	m := model.New()
	for _, op := range c.Setup {
		m.Do(op)
	}
	h := NewHistory(m.Listing())
	var ends []int
	err = x.mounted(before.image, func() error {
		var err error
		ends, err = x.record(c, before, m, h)
		return err
	})
	if err != nil {
		return err
	}
	events := x.dev.Events()[:ends[len(ends)-1]]
	gone, err := openHolders(filepath.Join(x.dir, "holders"))
	if err != nil {
		return err
	}
	x.seen = map[uint64]bool{}
	for _, cut := range x.cuts(events, ends[0]) {
		k := 0
		for k+1 < len(ends) && ends[k+1] <= cut.at {
			k++
		}
		was := &drive{holders: gone, passthrough: c.Passthrough}
		err := x.look(blockdev.PowerLoss(before.image, events[:cut.at], cut.loss), was, k, func(l model.Listing) error { return h.AfterPowerLoss(l, k) })
		if err != nil {
			return fmt.Errorf("power lost after operation %d and event %d of %d, losing %s: %w", k, cut.at, len(events), cut.loss.Name, err)
		}
	}
	return nil
}

// prepare makes what is there before a case, once for each kind.
func (x *Power) prepare(c Case) (prepared, error) {
	name := fmt.Sprint(c.Passthrough, c.Setup)
	if p, ok := x.prepared[name]; ok {
		return p, nil
	}
	var p prepared
	err := x.mounted(x.empty, func() error {
		d, err := newServed(x.dir, x.home(), c.Passthrough, "")
		if err != nil {
			return err
		}
		defer d.End()
		for _, op := range c.Setup {
			if r := d.Do(op); r.Errno != 0 {
				return fmt.Errorf("%v: %v", op, r)
			}
		}
		if err := d.Stop(); err != nil {
			return err
		}
		p.holders, err = openHolders(d.holders())
		return err
	})
	if err != nil {
		return p, err
	}
	p.image = x.dev.Image()
	x.prepared[name] = p
	return p, nil
}

// record does a case and tells how many events there were before it and after
// each operation.
func (x *Power) record(c Case, before prepared, m *model.Tree, h *History) ([]int, error) {
	d, err := servedAt(x.dir, x.home(), c.Passthrough, x.Without)
	if err == nil {
		err = before.holders.save(d.holders())
	}
	if err == nil {
		err = d.Start()
	}
	if err != nil {
		return nil, err
	}
	defer d.Kill()
	ends := []int{x.dev.Len()}
	for i, op := range c.Ops {
		file := m.FileOf(op)
		want := m.Do(op)
		if got := d.Do(op); got.Errno != want.Errno {
			return nil, fmt.Errorf("operation %d: %v, want %v", i+1, got, want)
		}
		h.Add(op, want, file, m)
		ends = append(ends, x.dev.Len())
		if !x.Quiet && x.Rand.IntN(3) == 0 {
			if err := x.writeBack(); err != nil { // as the kernel does when it likes
				return nil, err
			}
		}
	}
	return ends, nil
}

// writeBack has the local filesystem write what it has, which nobody asked for.
func (x *Power) writeBack() error {
	fd, err := unix.Open(x.disk(), os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Syncfs(fd)
}

// cut is a way to lose power after some events.
type cut struct {
	at   int
	loss blockdev.Loss
}

// cuts chooses some: after each event nothing or part of the last write is lost,
// and where a flush is about to come, all and more.
func (x *Power) cuts(events []blockdev.Event, from int) []cut {
	var out []cut
	for p := from; p <= len(events); p++ {
		n := blockdev.Unflushed(events[:p])
		losses := blockdev.Losses(x.Rand, 3)
		switch last := p == len(events) || events[p].IsFlush(); {
		case n == 0:
			losses = losses[:1]
		case !last:
			losses = []blockdev.Loss{losses[0], losses[2]}
		}
		for _, l := range losses {
			out = append(out, cut{p, l})
		}
	}
	if len(out) > x.Most {
		x.Rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
		out = out[:x.Most]
		slices.SortStableFunc(out, func(a, b cut) int { return a.at - b.at })
	}
	return out
}

// look judges what a drive shows on an image, once for each that is the same
// after so many operations.
func (x *Power) look(m blockdev.Image, was *drive, k int, judge func(model.Listing) error) error {
	x.Images++
	return x.mounted(m, func() error {
		d, err := copyHome(x.home())
		if err != nil {
			return fmt.Errorf("the local filesystem cannot be read: %w", err)
		}
		if hash := d.Hash() ^ uint64(k); x.seen[hash] {
			return nil
		} else {
			x.seen[hash] = true
		}
		x.States++
		for _, when := range []string{"", "opened again: "} {
			if err := look(d, was, false, judge); err != nil {
				return fmt.Errorf("%s%w", when, err)
			}
		}
		if x.States%servedAgain != 0 {
			return nil
		}
		return x.serveAgain(was, judge)
	})
}

// serveAgain judges what a mount shows of the home that is there.
func (x *Power) serveAgain(was *drive, judge func(model.Listing) error) error {
	d, err := servedAt(x.dir, x.home(), was.passthrough, "")
	if err != nil {
		return err
	}
	if err := d.Start(); err != nil {
		return fmt.Errorf("does not start: %w", err)
	}
	defer d.Kill()
	l, err := d.List()
	if err == nil {
		err = judge(l)
	}
	if err != nil {
		return fmt.Errorf("mounted: %w", err)
	}
	return nil
}

// Shrink leaves out operations as long as the case goes on failing.
func (x *Power) Shrink(c Case, err error) (Case, error) {
	most := x.Most
	x.Most *= 10
	defer func() { x.Most = most }()
	c.Ops = fewest(c.Ops, func(ops []model.Op) bool {
		serr := x.Run(Case{c.Passthrough, c.Setup, ops})
		if serr != nil {
			err = serr
		}
		return serr != nil
	})
	return c, err
}

// copyHome returns a disk in memory with what is in a home.
func copyHome(home string) (*memdisk.Disk, error) {
	d := memdisk.New()
	err := filepath.WalkDir(home, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at := path[len(home):]
		if e.IsDir() {
			return d.Mkdir(at + "/")
		}
		return copyFile(d, at, path)
	})
	return d, err
}

// copyFile copies a file's data and leaves its holes.
func copyFile(d *memdisk.Disk, at, path string) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := d.Open(at, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	defer to.Close()
	end, err := from.Seek(0, 2)
	if err == nil {
		err = to.Truncate(end)
	}
	for off := int64(0); off < end && err == nil; {
		start, serr := unix.Seek(int(from.Fd()), off, unix.SEEK_DATA)
		if serr == unix.ENXIO {
			return nil
		}
		var b []byte
		if off, err = unix.Seek(int(from.Fd()), start, unix.SEEK_HOLE); err == nil && serr == nil {
			b = make([]byte, off-start)
			_, err = from.ReadAt(b, start)
		}
		if err = errors.Join(err, serr); err == nil {
			_, err = to.WriteAt(b, start)
		}
	}
	return err
}
