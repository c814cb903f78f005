package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"skep/chunker/words"
	"skep/cmd/skep/control"
	"skep/cmd/skep/home"
)

// Device is a home with a drive, and the directory where it is mounted.
type Device struct {
	Home  string
	Words string // file with the recovery words
	Mnt   string

	log    string
	swarm  *Swarm
	client *control.Client
	proc   *Process
}

// NewDevice makes a new drive on the swarm.
func (s *Swarm) NewDevice(t testing.TB, args ...string) *Device {
	t.Helper()
	d := s.device(t, "device")
	d.Words = d.Home + ".words"
	d.Skep(t, append(s.deviceArgs("init", d.Words), args...)...).OK(t)
	return d
}

// NewDeviceAt makes a new drive on the swarm, with its home at a path.
func (s *Swarm) NewDeviceAt(t testing.TB, home string, args ...string) *Device {
	t.Helper()
	d := s.device(t, "device")
	d.use(home)
	d.Words = d.Mnt + ".words"
	d.Skep(t, append(s.deviceArgs("init", d.Words), args...)...).OK(t)
	return d
}

// Recover brings the drive of some words back, on a device that is new to it.
func (s *Swarm) Recover(t testing.TB, words string, args ...string) *Device {
	t.Helper()
	d := s.device(t, "recovered")
	d.Words = words
	d.Skep(t, append(s.deviceArgs("recover", words), args...)...).OK(t)
	return d
}

func (s *Swarm) deviceArgs(command, words string) []string {
	args := []string{command, "--words-file", words, "--offer", "0",
		"--listen", "/ip4/127.0.0.1/tcp/0", "--dead-after", s.Opt.DeadAfter.String()}
	if b := s.Bootstrap(); b != "" {
		args = append(args, "--bootstrap", b)
	}
	return args
}

// device finds a free name for one more device.
func (s *Swarm) device(t testing.TB, name string) *Device {
	t.Helper()
	base := filepath.Join(s.Dir, name)
	for i := 2; exists(base); i++ {
		base = filepath.Join(s.Dir, fmt.Sprintf("%s%d", name, i))
	}
	d := &Device{Mnt: base + ".mnt", log: base + ".log", swarm: s}
	d.use(base)
	must(t, os.Mkdir(d.Mnt, 0o755))
	return d
}

func (d *Device) use(dir string) {
	d.Home, d.client = dir, control.NewClient(home.Dir(dir).Socket())
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Skep runs a command for the device's home.
func (d *Device) Skep(t testing.TB, args ...string) Result {
	t.Helper()
	return Skep(t, append([]string{"--home", d.Home}, args...)...)
}

// Mount starts the daemon and waits until the drive is there and as many peers
// as run answer it.
func (d *Device) Mount(t testing.TB, args ...string) {
	t.Helper()
	d.MountAlone(t, args...)
	running := 0
	for _, p := range d.swarm.Peers {
		if p.Running() {
			running++
		}
	}
	d.WaitStatus(t, 30*time.Second, "the running peers answer", func(s control.Status) bool {
		return Alive(s) >= running
	})
}

// BeginMount starts the daemon, which is to mount the drive.
func (d *Device) BeginMount(t testing.TB, args ...string) {
	t.Helper()
	argv := append([]string{"--home", d.Home, "mount", "--foreground"}, args...)
	d.proc = start(t, d.swarm.t, exec.Command(Binary(), append(argv, d.Mnt)...), d.log)
}

// MountAlone starts the daemon and waits until the drive is there.
func (d *Device) MountAlone(t testing.TB, args ...string) {
	t.Helper()
	d.BeginMount(t, args...)
	Until(t, 30*time.Second, "the drive is mounted", func() (bool, string) {
		select {
		case <-d.proc.ended:
			t.Fatalf("the daemon ended: %s", tail(d.proc.log))
		default:
		}
		s, err := d.TryStatus(t)
		return err == nil && len(s.Mounts) > 0, fmt.Sprint(err)
	})
}

// Alive counts the peers that answer.
func Alive(s control.Status) int {
	n := 0
	for _, p := range s.Peers {
		if p.State == "alive" {
			n++
		}
	}
	return n
}

// Process is the device's daemon.
func (d *Device) Process() *Process { return d.proc }

// Kill takes the device's power away and cleans its dead mount up.
func (d *Device) Kill() {
	d.proc.Kill()
	Detach(d.Mnt)
}

// Stop ends the daemon in order.
func (d *Device) Stop(t testing.TB) {
	t.Helper()
	d.proc.Stop(t)
}

// Destroy loses the device: nothing of it remains.
func (d *Device) Destroy(t testing.TB) {
	t.Helper()
	d.Kill()
	must(t, os.RemoveAll(d.Home))
}

// Path of something in the mounted drive.
func (d *Device) Path(elem ...string) string {
	return filepath.Join(append([]string{d.Mnt}, elem...)...)
}

// Log is the file with the daemon's log.
func (d *Device) Log() string { return d.log }

// TryStatus asks the daemon for its status.
func (d *Device) TryStatus(t testing.TB, paths ...string) (control.Status, error) {
	var s control.Status
	ctx, cancel := context.WithTimeout(Context(t), 20*time.Second)
	defer cancel()
	names := make([][]byte, len(paths))
	for i, p := range paths {
		names[i] = []byte(p)
	}
	err := d.client.Call(ctx, "/v1/status", map[string]any{"paths": names}, &s)
	return s, err
}

// Status runs skep status --json.
func (d *Device) Status(t testing.TB, paths ...string) control.Status {
	t.Helper()
	out := d.Skep(t, append([]string{"status", "--json"}, paths...)...).OK(t)
	var s control.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("status --json: %v\n%s", err, out)
	}
	return s
}

// WaitStatus waits until the status is as it should.
func (d *Device) WaitStatus(t testing.TB, limit time.Duration, what string, cond func(control.Status) bool) control.Status {
	t.Helper()
	var s control.Status
	Until(t, limit, what, func() (bool, string) {
		var err error
		if s, err = d.TryStatus(t); err != nil {
			return false, err.Error()
		}
		return cond(s), Brief(s)
	})
	return s
}

// Brief is what matters of a status in a message.
func Brief(s control.Status) string {
	return fmt.Sprintf("%d peers alive of %d; packs %d, below target %d, lost %d, at risk %d, shards missing %d, repairing %d; pending %d files, %d bytes; commit %d; last error %q",
		Alive(s), len(s.Peers), s.Packs, s.PacksBelowTarget, s.PacksLost, s.PacksAtRisk, s.ShardsMissing, s.Repairing, s.PendingFiles, s.PendingBytes, s.Commit, s.LastError)
}

// Sync runs skep sync.
func (d *Device) Sync(t testing.TB) {
	t.Helper()
	d.Skep(t, "sync", "--timeout", "80s").OK(t)
}

// WaitSafe waits for full redundancy.
func (d *Device) WaitSafe(t testing.TB, limit time.Duration) control.Status {
	t.Helper()
	return d.WaitStatus(t, limit, "all packs have all their shards", Safe)
}

// Safe reports whether all packs have all their shards.
func Safe(s control.Status) bool {
	return len(s.Codings) > 0 && s.Packs > 0 && s.PacksBelowTarget == 0 && s.ShardsMissing == 0
}

// Spare is how many holders may be lost with no pack lost, less one: the
// smallest n-k-1 over all codings in use.
func Spare(t testing.TB, s control.Status) int {
	t.Helper()
	if len(s.Codings) == 0 {
		t.Fatal("status tells no codings")
	}
	least := s.Codings[0].N - s.Codings[0].K - 1
	for _, c := range s.Codings[1:] {
		least = min(least, c.N-c.K-1)
	}
	return least
}

// NewWords are recovery words of no drive.
func NewWords() []byte { return []byte(words.New().Phrase() + "\n") }
