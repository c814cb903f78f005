package blockdev

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

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

// TestCut: what came before the power went is there, what comes later fails.
func TestCut(t *testing.T) {
	d, mnt := newDevice(t)
	must(t, d.Mount(mnt))
	before, start := d.Image(), d.Len()
	gone := 0
	d.Cut(3, func() { gone++ })
	f, err := os.Create(filepath.Join(mnt, "a"))
	must(t, err)
	if err := f.Sync(); err == nil {
		t.Error("fsync succeeded without power")
	}
	must(t, f.Close())
	if events := d.Events(); gone != 1 || len(events) != start+3 {
		t.Errorf("%d events, the power went %d times", len(events)-start, gone)
	}
	must(t, unix.Unmount(mnt, 0))
	must(t, d.Load(before))
	must(t, d.Mount(mnt))
	defer unix.Unmount(mnt, 0)
	must(t, os.WriteFile(filepath.Join(mnt, "b"), []byte("power is back"), 0o600))
}

// TestStays: a filesystem on the device that is unmounted here may live on in
// another mount namespace. What it has still to write does not get into what is
// loaded then.
func TestStays(t *testing.T) {
	d, mnt := newDevice(t)
	must(t, d.Mount(mnt))
	image := d.Image()
	stays := exec.Command("cat")
	stays.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	in, err := stays.StdinPipe()
	must(t, err)
	must(t, stays.Start())
	must(t, os.WriteFile(filepath.Join(mnt, "a"), []byte("not flushed"), 0o600))
	must(t, unix.Unmount(mnt, 0))
	must(t, d.Load(image))
	before := d.Len()
	must(t, in.Close())
	must(t, stays.Wait()) // and it unmounts the last of it
	if n := d.Len() - before; n > 0 {
		t.Errorf("%d events that are not of this image", n)
	}
}

// leave, set to a directory, has TestKilled leave a device there.
const leave = "SKEP_TEST_LEAVE"

// TestKilled: of a test that is killed while its device is mounted, no mount stays and
// no loop device: not though it waits for its disk, which waits for it; and if what
// answers for the disk is killed, too, not once somebody makes another.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(leave); dir != "" {
		leaveBehind(t, dir)
	}
	if err := Usable(); err != nil {
		t.Skip(err)
	}
	for name, withServer := range map[string]bool{"test": false, "test and server": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestKilled$")
			cmd.Env = append(os.Environ(), leave+"="+dir)
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			lines := bufio.NewScanner(out)
			said := func() string { lines.Scan(); return lines.Text() }
			loop, server := said(), said()
			if left := mountedBelow(t, dir); len(left) != 2 {
				t.Errorf("there is nothing to take away but %v", left)
			}
			if withServer {
				pid, err := strconv.Atoi(server)
				must(t, err)
				must(t, unix.Kill(pid, unix.SIGKILL))
			}
			must(t, cmd.Process.Kill())
			_ = cmd.Wait()
			if withServer {
				newDevice(t)
			}
			until(t, "nothing of it is mounted", func() bool { return len(mountedBelow(t, dir)) == 0 })
			until(t, loop+" is gone", func() bool { return !usesFileOf(loop, dir) })
		})
	}
}

// until waits until something is so.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after a minute it is not so that %s", what)
		}
	}
}

func mountedBelow(t *testing.T, dir string) (left []string) {
	all, err := mounts()
	must(t, err)
	for _, m := range all {
		if strings.HasPrefix(m.dir, dir+"/") {
			left = append(left, m.dir)
		}
	}
	return left
}

// usesFileOf reports whether a loop device lies on a file below a directory, which
// may be unmounted: then the kernel tells the rest of the path.
func usesFileOf(loop, dir string) bool {
	b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(strings.TrimSpace(loop)), "loop/backing_file"))
	path := strings.TrimSpace(string(b))
	return err == nil && (strings.HasPrefix(path, "/disk") || strings.HasPrefix(path, dir))
}

// leaveBehind makes a device, mounts it, and waits for it, to be killed: the moment at
// which the power goes lasts for ever.
func leaveBehind(t *testing.T, dir string) {
	must(t, os.Mkdir(filepath.Join(dir, "dev"), 0o700))
	must(t, os.Mkdir(filepath.Join(dir, "mnt"), 0o700))
	d, err := New(filepath.Join(dir, "dev"), 32<<20)
	must(t, err)
	must(t, d.Format())
	must(t, d.Mount(filepath.Join(dir, "mnt")))
	d.Cut(1, func() {
		fmt.Printf("%s\n%d\n", d.Path(), d.disk.pid)
		select {}
	})
	f, err := os.Create(filepath.Join(dir, "mnt", "file"))
	must(t, err)
	t.Fatal(f.Sync())
}

// TestTear: a write is torn between sectors, but for that of ext4's superblock.
func TestTear(t *testing.T) {
	halves := map[int64]int{}
	for _, at := range []int64{1024, 1 << 20} {
		for seed := range 100 {
			m, got := Image{}, make([]byte, 1024)
			m.tear(Event{Off: at, Data: bytes.Repeat([]byte{1}, len(got))}, seed)
			if m.read(got, at); got[0] != got[len(got)-1] {
				halves[at]++
			}
		}
	}
	if halves[1024] > 0 || halves[1<<20] == 0 {
		t.Errorf("in halves: %v", halves)
	}
}
