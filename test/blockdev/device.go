package blockdev

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Device is a block device. What it lies on is served by a process of its own, which
// takes all away when this one dies.
type Device struct {
	dir  string // of the file that the loop device lies on
	disk *process
	loop *os.File
	node uint64 // of the file

	loaded Image // by the last Load

	mu     sync.Mutex // guards events
	events []Event    // since Load, as far as they were asked for
}

// New makes a device of a size, which is a multiple of 4 KiB and holds zeros.
// The directory is for its own use, until Close. Devices that nobody serves any more
// go first, and all that is mounted beside their directories.
func New(dir string, size int64) (*Device, error) {
	if err := sweep(); err != nil {
		return nil, err
	}
	disk, err := start()
	if err != nil {
		return nil, fmt.Errorf("block device: %w", err)
	}
	d := &Device{dir: dir, disk: disk, node: rootNode + 1, loaded: Image{}}
	if err = disk.calls.Call("disk.Mount", Place{dir, size}, nil); err == nil {
		d.loop, err = attach(d.path())
	}
	if err != nil {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		disk.end()
		return nil, fmt.Errorf("block device: %w", err)
	}
	return d, nil
}

// path is that of the file that the loop device lies on.
func (d *Device) path() string { return filepath.Join(d.dir, fileName(d.node)) }

// attach makes a loop device over a file. It lasts as long as it is open.
func attach(path string) (*os.File, error) {
	below, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer below.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("no loop device is free: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		conf := unix.LoopConfig{Fd: uint32(below.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &conf); err == nil {
			return loop, nil
		}
		_ = loop.Close()
		if err != unix.EBUSY { // somebody was faster
			return nil, err
		}
	}
}

// Path is that of the device.
func (d *Device) Path() string { return d.loop.Name() }

// Load makes the device hold an image and forget its events. It must not be
// mounted. Its Path may be another one afterwards: the loop device is made anew,
// as nothing else is sure to make the kernel forget what was on it. What an earlier
// one has still to write fails.
func (d *Device) Load(m Image) error {
	if err := d.loop.Close(); err != nil {
		return err
	}
	d.disk.call("Load", d.loaded.changes(m), &d.node)
	d.loaded = m.Clone()
	d.mu.Lock()
	d.events = nil
	d.mu.Unlock()
	var err error
	d.loop, err = attach(d.path())
	return err
}

// Image is what the device holds.
func (d *Device) Image() Image { return d.loaded.after(d.Events()) }

// Len is how many events there were since Load.
func (d *Device) Len() (n int) {
	d.disk.call("Len", struct{}{}, &n)
	return n
}

// Events are the events since Load.
func (d *Device) Events() []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	var more []Event
	d.disk.call("Events", len(d.events), &more)
	d.events = append(d.events, more...)
	return d.events[:len(d.events):len(d.events)]
}

// Fail makes writes fail that contain some bytes, until it is called with nil.
func (d *Device) Fail(bad []byte) { d.disk.call("Fail", bad, nil) }

// Cut takes the power away after n more events, and has something done at that
// moment, which has to kill whoever would notice: what comes later fails, until
// Load.
func (d *Device) Cut(n int, then func()) {
	var number int
	d.disk.call("Cut", n, &number)
	go func() {
		var gone bool
		err := d.disk.calls.Call("disk.Await", number, &gone)
		if err == nil && gone { // and the process has not ended instead
			then()
			_ = d.disk.calls.Call("disk.Seen", number, nil)
		}
	}()
}

// Mount mounts the ext4 on the device.
func (d *Device) Mount(dir string) error {
	if err := unix.Mount(d.Path(), dir, "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount %s: %w", d.Path(), err)
	}
	d.warm()
	return nil
}

// apart is how many blocks lie between two that are read one by one.
const apart = 16

// warm reads what is on the device, so that the filesystem finds it in memory: a
// few large requests are quicker than many small ones.
func (d *Device) warm() {
	var run []byte
	start, last := int64(-1), int64(-1)
	flush := func() {
		if start >= 0 {
			run = slices.Grow(run[:0], int((last+1-start)*blockSize))
			_, _ = d.loop.ReadAt(run[:(last+1-start)*blockSize], start*blockSize)
		}
	}
	for _, b := range slices.Sorted(maps.Keys(d.loaded)) {
		if start < 0 || b > last+apart {
			flush()
			start = b
		}
		last = b
	}
	flush()
}

// Close takes the device away; it must not be mounted. The kernel lets go of the
// file a moment after the loop device is closed, which nobody has to wait for.
func (d *Device) Close() error {
	err := errors.Join(d.loop.Close(), unix.Unmount(d.dir, unix.MNT_DETACH))
	d.disk.end()
	return err
}
