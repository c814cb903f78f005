package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/test/harness"
)

// terminal is a new pseudo-terminal: what a person has, and what a program has.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { person.Close() })
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0))
	program, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	return person, program
}

// heedsHangup has what the test starts be told that its terminal is gone, also if the test
// runs under nohup.
func heedsHangup(t *testing.T) {
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(heard) })
}

// A mount in the foreground ends in order when its window is closed.
func TestClosedTerminalEndsTheMount(t *testing.T) {
	heedsHangup(t)
	dir := harness.Dir(t)
	homeDir, mnt := dir+"/home", dir+"/mnt"
	harness.Skep(t, "--home", homeDir, "init", "--offer", "0", "--words-file", dir+"/words").OK(t)
	must(t, os.Mkdir(mnt, 0o755))
	person, program := terminal(t)
	cmd := skep("--home", homeDir, "mount", "--foreground", mnt)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	program.Close()
	harness.Until(t, 60*time.Second, "it is mounted", func() (bool, string) { return isMounted(t, mnt), "" })
	must(t, person.Close())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(60 * time.Second):
		_ = cmd.Process.Kill()
		t.Fatal("it goes on without a terminal")
	}
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signaled() || isMounted(t, mnt) {
		t.Errorf("it ended so: %v; it is still mounted: %v", cmd.ProcessState, isMounted(t, mnt))
	}
}

// isMounted reports whether something is mounted at a path.
func isMounted(t *testing.T, path string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	return strings.Contains(string(b), " "+path+" ")
}

// Whoever does not know the passphrase can leave, and sees again what is typed.
func TestInterruptAtThePassphrase(t *testing.T) {
	dir := harness.Dir(t)
	secret := filepath.Join(dir, "passphrase")
	write(t, secret, "long enough")
	harness.Skep(t, "--home", dir+"/home", "--passphrase-file", secret, "init", "--offer", "0", "--words-file", dir+"/words").OK(t)
	person, program := terminal(t)
	was, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	must(t, err)
	mnt := dir + "/mnt"
	must(t, os.Mkdir(mnt, 0o755))
	cmd := skep("--home", dir+"/home", "mount", mnt)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	said := make([]byte, 4096)
	n := 0
	for !bytes.Contains(said[:n], []byte("Passphrase")) {
		more, err := person.Read(said[n:])
		must(t, err)
		n += more
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	patience := time.After(60 * time.Second)
	for again := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case err = <-ended:
			if err == nil {
				t.Error("it mounted without the passphrase")
			}
		case <-again.C: // it may not have asked yet that nothing is shown
			_, err := person.Write([]byte{3})
			must(t, err)
			continue
		case <-patience:
			_ = cmd.Process.Kill()
			t.Fatal("Ctrl-C does not end it")
		}
		again.Stop()
		break
	}
	now, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	must(t, err)
	if now.Lflag != was.Lflag {
		t.Errorf("the terminal is left with flags %#x, they were %#x", now.Lflag, was.Lflag)
	}
	program.Close()
}

// Of words that could not be shown there is no drive: it can be made again in its place.
func TestWordsThatCannotBeShown(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	defer full.Close()
	home := harness.Dir(t) + "/home"
	cmd := skep("--home", home, "init", "--offer", "0")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = full, &said
	if err := cmd.Run(); err == nil {
		t.Error("it succeeded")
	}
	says(t, said.String(), "no drive was made")
	harness.Skep(t, "--home", home, "status").Fails(t, 1, "no skep home here")
	harness.Skep(t, "--home", home, "init", "--offer", "0").OK(t)
}

// Who is killed before all words are shown has made no drive, of which nobody would know
// the words.
func TestKilledBeforeTheWordsAreShown(t *testing.T) {
	out, in, err := os.Pipe()
	must(t, err)
	defer out.Close()
	size, err := unix.FcntlInt(in.Fd(), unix.F_GETPIPE_SZ, 0)
	must(t, err)
	_, err = in.Write(make([]byte, size)) // so that nothing more goes in
	must(t, err)
	home := harness.Dir(t) + "/home"
	cmd := skep("--home", home, "init", "--offer", "0")
	cmd.Stdout, cmd.SysProcAttr = in, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	in.Close()
	harness.Until(t, 60*time.Second, "the keys are there", func() (bool, string) {
		_, err := os.Stat(home + "/keys")
		return err == nil, fmt.Sprint(err)
	})
	must(t, cmd.Process.Kill())
	if cmd.Wait() == nil {
		t.Error("it was over before it was killed")
	}
	harness.Skep(t, "--home", home, "mount", harness.Dir(t)).Fails(t, 1, "no skep home here")
	harness.Skep(t, "--home", home, "init", "--offer", "0").OK(t)
}

// Who interrupts a mount that waits for peers has none.
func TestInterruptedMount(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 1})
	d := swarm.NewDevice(t)
	peer := swarm.Peers[0].Process()
	peer.Signal(syscall.SIGSTOP)
	defer peer.Signal(syscall.SIGCONT)
	cmd := skep("--home", d.Home, "mount", d.Mnt)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	mounted := func() bool {
		b, err := os.ReadFile("/proc/self/mountinfo")
		must(t, err)
		return bytes.Contains(b, []byte(" "+d.Mnt+" "))
	}
	harness.Until(t, 60*time.Second, "the drive is mounted, while the command still waits", func() (bool, string) { return mounted(), "" })
	must(t, cmd.Process.Signal(os.Interrupt))
	if cmd.Wait() == nil {
		t.Log("it was mounted before it could be interrupted")
		return
	}
	harness.Until(t, 60*time.Second, "it is mounted no more", func() (bool, string) { return !mounted(), "" })
}
