package mount

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// childNotices has the child process of a test send a notice that waits.
const childNotices = "SKEP_MOUNT_TEST_NOTICES"

// noticing is a filesystem in which nobody can read anything: who tries waits, with
// pages of the file locked, and then the kernel is told to drop these, which waits for
// their locks.
type noticing struct{ *stuck }

func (n noticing) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	n.kernel.Waits(nil)
	go func() { _ = n.kernel.InvalidateInode(in.NodeId, 0, 0) }()
	select {}
}

// serveNoticing mounts a noticing filesystem, tells its mark, and serves it.
func serveNoticing(dir string) {
	s, err := Mount(dir, noticing{&stuck{bare: newBare()}}, Options{})
	var m Mark
	if err == nil {
		m, err = s.Mark()
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(m)
	_ = s.Run(context.Background())
}

// threadWaits reports whether a thread of a process waits for what no signal ends.
func threadWaits(pid int) bool {
	all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range all {
		b, _ := os.ReadFile(path)
		if _, after, ok := strings.Cut(string(b), ") "); ok && strings.HasPrefix(after, "D") {
			return true
		}
	}
	return false
}

// A daemon that was killed while the kernel had a notice of it waiting can end when the
// connection of its mount is ended, which no mark brings about of a daemon that lives, or
// of another mount.
func TestKilledWithANoticeWaiting(t *testing.T) {
	twice(t)
	needFUSE(t)
	mayAbort(t)
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, childNotices+"=1")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	ended := make(chan error, 1)
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	var m Mark
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		t.Fatal(line)
	}
	defer func() {
		_ = cmd.Process.Kill()
		abort(m.Dev)
		_ = detach(dir)
	}()
	reader := exec.Command("cat", filepath.Join(dir, "file"))
	must(t, reader.Start())
	read := make(chan error, 1)
	go func() { read <- reader.Wait() }()
	eventually(t, "the notice waits", func() bool { return threadWaits(cmd.Process.Pid) })
	never := func(m Mark, why string) {
		t.Helper()
		if done, err := m.EndKilled(); done || err != nil {
			t.Errorf("ended though %s: %v", why, err)
		}
	}
	never(m, "the daemon lives")
	must(t, cmd.Process.Kill())
	go func() { ended <- cmd.Wait() }()
	eventually(t, "the daemon is to die", m.isKilled)
	other := m
	other.Dev = "0:1"
	never(other, "it is another mount")
	other = m
	other.Started++
	never(other, "it is another process")
	select {
	case <-ended:
		t.Fatal("it ends by itself: the notice did not wait")
	default:
	}
	if done, err := m.EndKilled(); !done || err != nil {
		t.Fatalf("the daemon that was killed: %v, %v", done, err)
	}
	for what, end := range map[string]chan error{"the daemon": ended, "who waited for it": read} {
		select {
		case <-end:
		case <-time.After(time.Minute):
			t.Fatalf("%s does not end", what)
		}
	}
	never(m, "it is gone")
	s, err := Mount(dir, newBare(), Options{})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, s.Run(ctx))
}

// fusectlMagic tells the filesystem of the kernel's control files.
const fusectlMagic = 0x65735543

// mayAbort skips a test where this process cannot end a connection.
func mayAbort(t *testing.T) {
	t.Helper()
	if mayMount() {
		return
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/fuse/connections", &st); err != nil || st.Type != fusectlMagic {
		t.Skip("connections cannot be ended here: fusectl is not mounted at /sys/fs/fuse/connections")
	}
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
