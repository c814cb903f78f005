package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/cmd/skep/home"
	"skep/test/harness"
)

// running is a command that goes on while others are given.
type running struct {
	*exec.Cmd
	said  string // file with its standard error
	ended chan struct{}
}

// begin starts a command for a home.
func begin(t *testing.T, home string, args ...string) *running {
	t.Helper()
	r := &running{skep(append([]string{"--home", home}, args...)...), filepath.Join(harness.Dir(t), "said"), make(chan struct{})}
	said, err := os.Create(r.said)
	must(t, err)
	defer said.Close()
	r.Stderr = said
	r.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, r.Start())
	go func() {
		defer close(r.ended)
		_ = r.Wait()
	}()
	t.Cleanup(func() {
		_ = r.Process.Kill()
		<-r.ended
	})
	return r
}

// end waits for the end, and returns the exit status and what was said.
func (r *running) end(t *testing.T) (code int, said string) {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(60 * time.Second):
		t.Fatalf("%s does not end", r)
	}
	b, err := os.ReadFile(r.said)
	must(t, err)
	return r.ProcessState.ExitCode(), string(b)
}

// says waits until the command says something.
func (r *running) says(t *testing.T, what string) {
	t.Helper()
	harness.Until(t, 60*time.Second, "it says "+what, func() (bool, string) {
		b, err := os.ReadFile(r.said)
		must(t, err)
		return strings.Contains(string(b), what), string(b)
	})
}

// gate is a file in which readers find nothing, and wait until it is opened.
type gate string

func newGate(t *testing.T, path string) gate {
	t.Helper()
	must(t, unix.Mkfifo(path, 0o600))
	return gate(path)
}

// reached returns when somebody waits at the gate. What it returns lets him through.
func (g gate) reached(t *testing.T) (open func()) {
	t.Helper()
	_, open = reached(t, g)
	return open
}

// reached returns when somebody waits at one of some gates, and at which.
func reached(t *testing.T, gates ...gate) (at int, open func()) {
	t.Helper()
	fd := -1
	harness.Until(t, 60*time.Second, "somebody reads one of the files", func() (bool, string) {
		err := error(unix.ENXIO)
		for at = 0; at < len(gates) && err != nil; at++ {
			fd, err = unix.Open(string(gates[at]), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		}
		at--
		return err == nil, fmt.Sprint(err)
	})
	return at, func() { must(t, unix.Close(fd)) }
}

// free checks that nobody has a home.
func free(t *testing.T, dir string) {
	t.Helper()
	release, err := home.Dir(dir).Lock()
	if err != nil {
		t.Error(err)
		return
	}
	release()
}

// A daemon that is being opened is ended, too, and the command says that it waits for it.
// Who had it started may go.
func TestDownWhileOpening(t *testing.T) {
	d := alone(t)
	opening := newGate(t, filepath.Join(d.Home, "others"))
	mount := begin(t, d.Home, "mount", d.Mnt)
	open := opening.reached(t)
	must(t, mount.Process.Signal(os.Interrupt))
	if code, said := mount.end(t); code != 1 || said != "skep: interrupted\n" {
		t.Errorf("mount, interrupted: %d, %s", code, said)
	}
	down := begin(t, d.Home, "down")
	down.says(t, "waiting for the daemon")
	open()
	if code, said := down.end(t); code != 0 {
		t.Errorf("down: %d, %s", code, said)
	}
	free(t, d.Home)
	d.Skep(t, "down").OK(t) // there is nothing to end
}

// Who opens a home can be interrupted at any time.
func TestInterruptWhileOpening(t *testing.T) {
	d := alone(t)
	opening := newGate(t, filepath.Join(d.Home, "others"))
	for _, args := range [][]string{{"mount", "--foreground", d.Mnt}, {"fsck"}} {
		for _, by := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			r := begin(t, d.Home, args...)
			open := opening.reached(t)
			must(t, r.Process.Signal(by))
			if code, said := r.end(t); code != 1 || said != "skep: interrupted\n" {
				t.Errorf("%v, %v: %d, %s", args, by, code, said)
			}
			open()
			free(t, d.Home)
		}
	}
}

// While fsck has a home, no command waits for an answer; one that starts a daemon waits
// for the end of fsck.
func TestCommandsBesideFsck(t *testing.T) {
	d := alone(t)
	must(t, os.MkdirAll(filepath.Join(d.Home, "packs"), 0o700))
	var packs [2]gate // whichever it comes to first, it waits at the other one
	for i := range packs {
		packs[i] = newGate(t, filepath.Join(d.Home, "packs", fmt.Sprintf("%064d-1", i)))
	}
	fsck := begin(t, d.Home, "fsck")
	at, open := reached(t, packs[:]...)
	open()
	for _, args := range [][]string{{"status"}, {"sync"}, {"umount", d.Mnt}, {"repair", "status"}, {"pin", "--list"}} {
		d.Skep(t, args...).Fails(t, 1, "no skep daemon is running")
	}
	r := d.Skep(t, "doctor")
	r.Fails(t, 1)
	says(t, r.Stdout, "holds the home and takes no commands")
	d.Skep(t, "fsck").Fails(t, 1, "another skep daemon serves this home")
	mount := begin(t, d.Home, "mount", d.Mnt)
	mount.says(t, "waiting for the daemon that still has this home")
	open = packs[1-at].reached(t)
	open()
	if code, said := fsck.end(t); code != 0 {
		t.Errorf("fsck: %d, %s", code, said)
	}
	if code, said := mount.end(t); code != 0 {
		t.Errorf("mount: %d, %s", code, said)
	}
	write(t, d.Path("file"), "content")
	d.Skep(t, "down").OK(t)
}

// While a home is being made, nobody else makes one there.
func TestHomeMadeTwice(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 1})
	peer := swarm.Peers[0].Process()
	peer.Signal(syscall.SIGSTOP)
	defer peer.Signal(syscall.SIGCONT)
	dir := filepath.Join(harness.Dir(t), "home")
	words := dir + ".words"
	write(t, words, string(harness.NewWords()))
	recovery := []string{"recover", "--words-file", words, "--offer", "0", "--listen", "/ip4/127.0.0.1/tcp/0", "--bootstrap", swarm.Bootstrap()}
	first := begin(t, dir, recovery...)
	harness.Until(t, 60*time.Second, "the home is being made", func() (bool, string) {
		begun, err := filepath.Glob(filepath.Join(dir, "begun"))
		must(t, err)
		return len(begun) == 1, strings.Join(begun, " ")
	})
	for _, args := range [][]string{recovery, {"init", "--words-file", dir + ".new"}, {"peer"}} {
		harness.Skep(t, append([]string{"--home", dir}, args...)...).Fails(t, 1, "another skep command (init, recover or peer) is making this home", "--home")
	}
	absent(t, dir+".new")
	harness.Skep(t, "--home", dir, "mount", t.TempDir()).Fails(t, 1, "another skep command (init, recover or peer) is making this home")
	must(t, first.Process.Signal(os.Interrupt))
	if code, said := first.end(t); code != 1 || !strings.HasSuffix(said, "skep: interrupted\n") {
		t.Errorf("recover, interrupted: %d, %s", code, said)
	}
	harness.Skep(t, "--home", dir, "init", "--words-file", dir+".new").OK(t)
	absent(t, filepath.Join(dir, "begun"))
}

// Of two that make a home at the same time one makes it, and the other one says that it
// could not.
func TestInitAtOnce(t *testing.T) {
	base := harness.Dir(t)
	dir := filepath.Join(base, "home")
	var both []*running
	for _, words := range []string{"a", "b"} {
		both = append(both, begin(t, dir, "init", "--words-file", filepath.Join(base, words)))
	}
	made := 0
	for _, r := range both {
		switch code, said := r.end(t); {
		case code == 0:
			made++
		case code != 1 || !strings.Contains(said, "making this home") && !strings.Contains(said, home.ErrExists.Error()):
			t.Errorf("%d, %s", code, said)
		}
	}
	words, err := filepath.Glob(filepath.Join(base, "[ab]"))
	must(t, err)
	if made != 1 || len(words) != 1 {
		t.Errorf("%d were made, and there are the words of %d", made, len(words))
	}
}
