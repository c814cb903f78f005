package blockdev

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newDevice returns a device with an empty ext4, and where to mount it.
func newDevice(t *testing.T) (*Device, string) {
	t.Helper()
	if err := Usable(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "dev"), 0o700))
	must(t, os.Mkdir(filepath.Join(dir, "mnt"), 0o700))
	d, err := New(filepath.Join(dir, "dev"), 32<<20)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	must(t, d.Format())
	return d, filepath.Join(dir, "mnt")
}

// TestPowerLoss: what was flushed is there after the power went, what was not is
// not where all is lost, and nothing is where nothing is.
func TestPowerLoss(t *testing.T) {
	d, mnt := newDevice(t)
	must(t, d.Mount(mnt))
	before := d.Image()
	start := d.Len()
	b := bytes.Repeat([]byte("flushed "), 1000)
	write := func(name string, flush bool) {
		f, err := os.Create(filepath.Join(mnt, name))
		must(t, err)
		_, err = f.Write(b)
		must(t, err)
		if flush {
			must(t, f.Sync())
		}
		must(t, f.Close())
	}
	write("a", true)
	write("b", false)
	events := d.Events()[start:]
	must(t, unix.Unmount(mnt, 0))
	if len(events) == 0 {
		t.Fatal("an fsync wrote nothing")
	}
	for _, loss := range Losses(rand.New(rand.NewPCG(1, 1)), 2) {
		t.Run(loss.Name, func(t *testing.T) {
			must(t, d.Load(PowerLoss(before, events, loss)))
			must(t, d.Mount(mnt))
			defer unix.Unmount(mnt, 0)
			got, err := os.ReadFile(filepath.Join(mnt, "a"))
			if err != nil || !bytes.Equal(got, b) {
				t.Errorf("flushed: %d bytes, %v", len(got), err)
			}
		})
	}
	must(t, d.Load(before))
	must(t, d.Mount(mnt))
	defer unix.Unmount(mnt, 0)
	if _, err := os.Stat(filepath.Join(mnt, "a")); err == nil {
		t.Error("the device holds what came after its image")
	}
}
