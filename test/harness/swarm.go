package harness

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Dir makes a directory for a test, with a short path (control sockets need
// one), and removes it, the mounts in it and the daemons of the homes in it at
// the end.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "skep-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() {
		failOnRaces(t, dir)
		showLogs(t, dir)
		killDaemons(dir)
		unmountBelow(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// unmountBelow takes away what is mounted below a directory.
func unmountBelow(t testing.TB, dir string) {
	all, err := mountPoints()
	must(t, err)
	for _, at := range slices.Backward(all) {
		if strings.HasPrefix(at, dir+"/") {
			Detach(at)
		}
	}
}

// unescape gives the characters back that the kernel writes as numbers in a path.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// mountPoints are the directories at which something is mounted, in the order in
// which it was.
func mountPoints() (out []string, err error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 {
			out = append(out, unescape.Replace(f[4]))
		}
	}
	return out, err
}

// Detach takes a mount away, dead or alive.
func Detach(dir string) {
	if unix.Unmount(dir, unix.MNT_DETACH) != nil {
		_ = exec.Command("fusermount3", "-uzq", dir).Run()
	}
}

// killDaemons kills the daemons that serve homes in a directory.
func killDaemons(dir string) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir
		}
		if e.Type()&fs.ModeSocket != 0 {
			if pid, ok := ServerPID(path); ok {
				_ = unix.Kill(pid, unix.SIGKILL)
				waitGone(pid)
			}
		}
		if e.IsDir() && isMount(path) {
			return fs.SkipDir
		}
		return nil
	})
}

// isMount reports whether something is mounted at a directory.
func isMount(dir string) bool {
	all, _ := mountPoints()
	return slices.Contains(all, dir)
}

// ServerPID is the process that listens on a Unix socket.
func ServerPID(socket string) (pid int, ok bool) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	if unix.Connect(fd, &unix.SockaddrUnix{Name: socket}) != nil {
		return 0, false
	}
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || c.Pid <= 0 || int(c.Pid) == os.Getpid() {
		return 0, false
	}
	return int(c.Pid), true
}

// waitGone waits until a process that was killed is gone.
func waitGone(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(10*time.Second/time.Millisecond))
}

// Options of a swarm.
type Options struct {
	Peers     int
	DeadAfter time.Duration // 0: a minute, so that nobody is missed in a test of other things
	Offer     string        // of each peer; "" is 1G
}

// Swarm is a number of storage peers on loopback.
type Swarm struct {
	Dir   string
	Opt   Options
	Peers []*Peer

	t testing.TB // owner of all processes
}

// NewSwarm starts a swarm.
func NewSwarm(t testing.TB, opt Options) *Swarm {
	t.Helper()
	if opt.DeadAfter == 0 {
		opt.DeadAfter = time.Minute
	}
	if opt.Offer == "" {
		opt.Offer = "1G"
	}
	s := &Swarm{t: t, Dir: Dir(t), Opt: opt}
	for range opt.Peers {
		s.begin(t)
	}
	for _, p := range s.Peers {
		p.ready(t)
	}
	return s
}

// Add starts one more peer, with more arguments for it.
func (s *Swarm) Add(t testing.TB, args ...string) *Peer {
	t.Helper()
	p := s.begin(t, args...)
	if i := slices.Index(args, "--home"); i >= 0 {
		p.Home = args[i+1]
	}
	p.ready(t)
	return p
}

// AddProgram starts a peer that is another program, which joins by an address,
// keeps its shards under a home, and prints its own address.
func (s *Swarm) AddProgram(t testing.TB, program func(home, bootstrap string) *exec.Cmd) *Peer {
	t.Helper()
	p := s.peer()
	p.program = program
	p.begin(t)
	p.ready(t)
	return p
}

func (s *Swarm) begin(t testing.TB, args ...string) *Peer {
	t.Helper()
	p := s.peer()
	p.args = args
	p.begin(t)
	if len(s.Peers) == 1 {
		p.ready(t) // the others need its address
	}
	return p
}

// peer is one more, which does not run yet.
func (s *Swarm) peer() *Peer {
	name := fmt.Sprintf("peer%d", len(s.Peers))
	p := &Peer{swarm: s, name: name, Home: filepath.Join(s.Dir, name), listen: "/ip4/127.0.0.1/tcp/0"}
	s.Peers = append(s.Peers, p)
	return p
}

// Bootstrap is the address of a peer that runs.
func (s *Swarm) Bootstrap() string {
	for _, p := range s.Peers {
		if p.Running() {
			return p.Addr
		}
	}
	return ""
}

// ByID finds the peer with an id.
func (s *Swarm) ByID(id string) *Peer {
	for _, p := range s.Peers {
		if p.ID() == id {
			return p
		}
	}
	return nil
}

// Peer is one storage peer.
type Peer struct {
	Home string
	Addr string // its full address

	swarm  *Swarm
	name   string
	listen string
	args   []string
	proc   *Process
	told   bool // this process told its address

	program func(home, bootstrap string) *exec.Cmd // nil: skep peer
}

func (p *Peer) begin(t testing.TB) {
	t.Helper()
	args := []string{"peer", "--home", p.Home, "--offer", p.swarm.Opt.Offer, "--listen", p.listen,
		"--dead-after", p.swarm.Opt.DeadAfter.String()}
	if b := p.swarm.Bootstrap(); b != "" && b != p.Addr {
		args = append(args, "--bootstrap", b)
	}
	cmd := exec.Command(Binary(), append(args, p.args...)...)
	if p.program != nil {
		cmd = p.program(p.Home, p.swarm.Bootstrap())
	}
	log := filepath.Join(p.swarm.Dir, p.name+".log")
	p.proc, p.told = start(t, p.swarm.t, cmd, log), false
}

// ready waits for the address that the peer prints.
func (p *Peer) ready(t testing.TB) {
	t.Helper()
	if p.told {
		return
	}
	select {
	case line, ok := <-p.proc.lines:
		if !ok {
			t.Fatalf("peer %s did not start: %s", p.Home, tail(p.proc.log))
		}
		p.Addr, p.told = line, true
		p.listen, _, _ = strings.Cut(line, "/p2p/") // the same one when it runs again
	case <-time.After(60 * time.Second):
		t.Fatalf("peer %s was not ready in time: %s", p.Home, tail(p.proc.log))
	}
}

// ID of the peer in the swarm.
func (p *Peer) ID() string {
	_, id, _ := strings.Cut(p.Addr, "/p2p/")
	return id
}

// Process that the peer is.
func (p *Peer) Process() *Process { return p.proc }

// Running reports whether the peer's process is there and told its address.
func (p *Peer) Running() bool {
	if p.proc == nil || p.Addr == "" {
		return false
	}
	select {
	case <-p.proc.ended:
		return false
	default:
		return true
	}
}

// Kill takes the peer's power away.
func (p *Peer) Kill() { p.proc.Kill() }

// Destroy kills the peer and deletes its disk.
func (p *Peer) Destroy(t testing.TB) {
	t.Helper()
	p.Kill()
	must(t, os.RemoveAll(p.Home))
}

// Start runs the peer again, at its old address.
func (p *Peer) Start(t testing.TB) {
	t.Helper()
	p.begin(t)
	p.ready(t)
}

// Shards are the files of the shards that the peer holds.
func (p *Peer) Shards(t testing.TB) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(p.Home, "hosted", "groups", "*", "*"))
	must(t, err)
	var shards []string
	for _, f := range all {
		if filepath.Base(f) != "lease" {
			shards = append(shards, f)
		}
	}
	return shards
}

// Alter flips bits in every leaf of the shards that the peer holds, which may run,
// and leaves what precedes the shards in their files. It returns how many it altered,
// and a function that tells how many of them are still there.
func (p *Peer) Alter(t testing.TB) (n int, left func() int) {
	t.Helper()
	altered := map[string]os.FileInfo{}
	for _, path := range p.Shards(t) {
		alter(t, path)
		fi, err := os.Stat(path)
		must(t, err)
		altered[path] = fi
	}
	if len(altered) == 0 {
		t.Fatalf("%s holds nothing", p.Home)
	}
	return len(altered), func() (n int) {
		for path, fi := range altered {
			if now, err := os.Stat(path); err == nil && os.SameFile(now, fi) {
				n++
			}
		}
		return n
	}
}

func alter(t testing.TB, path string) {
	t.Helper()
	const often = 2 << 10 // several times in a leaf of 16 KiB
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	fi, err := f.Stat()
	must(t, err)
	var b [1]byte
	for off := fi.Size() - 1; off > 4<<10+fi.Size()/128; off -= often {
		_, err := f.ReadAt(b[:], off)
		must(t, err)
		b[0] ^= 0x10
		_, err = f.WriteAt(b[:], off)
		must(t, err)
	}
	must(t, f.Close())
}

// Hosted is how many bytes the shards take that the peer holds.
func (p *Peer) Hosted(t testing.TB) int64 {
	t.Helper()
	var sum int64
	for _, f := range p.Shards(t) {
		if fi, err := os.Stat(f); err == nil {
			sum += fi.Size()
		}
	}
	return sum
}

// Hosted is how many bytes of shards lie at all peers together.
func (s *Swarm) Hosted(t testing.TB) int64 {
	t.Helper()
	var sum int64
	for _, p := range s.Peers {
		sum += p.Hosted(t)
	}
	return sum
}
