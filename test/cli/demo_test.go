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

	"skep/cmd/skep/home"
	"skep/test/harness"
)

// The demo is a swarm with a drive, which works, and nothing of it is left after
// Ctrl-C.
func TestDemo(t *testing.T) {
	t.Run("at a bad place", func(t *testing.T) {
		dir := harness.Dir(t)
		write(t, filepath.Join(dir, "file"), "mine")
		for place, says := range map[string]string{dir: "not empty; choose", filepath.Join(dir, "file"): "not a directory"} {
			r := harness.Skep(t, "demo", place)
			r.Fails(t, 1, says)
			if strings.Contains(r.Stdout, "Starting") {
				t.Errorf("peers were started for it: %s", r.Stdout)
			}
		}
	})
	asUser(t)
	dir := harness.Dir(t)
	temp, drive, log := filepath.Join(dir, "temp"), filepath.Join(dir, "new", "drive"), filepath.Join(dir, "demo.log")
	must(t, os.Mkdir(temp, 0o700))
	out, err := os.Create(log)
	must(t, err)
	defer out.Close()
	cmd := skep("demo", "--peers", "4", drive)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	harness.Until(t, 90*time.Second, "the demo says what to try", func() (bool, string) {
		b, err := os.ReadFile(log)
		must(t, err)
		return strings.Contains(string(b), "Ctrl-C ends the demo"), string(b)
	})
	write(t, filepath.Join(drive, "file"), "content")
	homes, err := filepath.Glob(filepath.Join(temp, "*", "home"))
	must(t, err)
	if len(homes) != 1 {
		t.Fatalf("homes: %v", homes)
	}
	harness.Skep(t, "--home", homes[0], "sync", "--timeout", "60s").OK(t)
	harness.Until(t, 60*time.Second, "a peer is named that holds something", func() (bool, string) {
		b, err := os.ReadFile(log)
		must(t, err)
		_, said, _ := strings.Cut(string(b), "\n  kill ")
		var pid int
		n, _ := fmt.Sscan(said, &pid)
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return n == 1 && err == nil && strings.Contains(string(cmdline), "peer"), string(b)
	})
	must(t, cmd.Process.Signal(os.Interrupt))
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(60 * time.Second):
		t.Fatal("the demo did not end after Ctrl-C")
	}
	absent(t, filepath.Dir(drive))
	left, err := filepath.Glob(filepath.Join(temp, "*"))
	must(t, err)
	if left = append(left, runningBelow(t, temp)...); len(left) > 0 {
		t.Errorf("the demo left %q", left)
	}
}

// What a demo left that was killed, the next one takes away, and nothing that is in
// use or somebody else's.
func TestDemoClearsDeadOnes(t *testing.T) {
	heedsHangup(t)
	dir := harness.Dir(t)
	temp := filepath.Join(dir, "temp")
	must(t, os.Mkdir(temp, 0o700))
	demo := func(name string) (*exec.Cmd, string) {
		log := filepath.Join(dir, name+".log")
		out, err := os.Create(log)
		must(t, err)
		defer out.Close()
		cmd := skep("demo", "--peers", "1", filepath.Join(dir, name))
		cmd.Env = append(os.Environ(), "TMPDIR="+temp)
		cmd.Stdout, cmd.Stderr = out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		must(t, cmd.Start())
		harness.Until(t, 90*time.Second, "the demo says what to try", func() (bool, string) {
			b, err := os.ReadFile(log)
			must(t, err)
			return strings.Contains(string(b), "Ctrl-C ends the demo"), string(b)
		})
		homes, err := filepath.Glob(filepath.Join(temp, "*", "home"))
		must(t, err)
		return cmd, strings.Join(homes, " ")
	}
	killed, first := demo("killed")
	must(t, killed.Process.Kill())
	_ = killed.Wait()
	harness.Until(t, 60*time.Second, "the processes of the demo are gone", func() (bool, string) {
		left := runningBelow(t, temp)
		return len(left) == 0, strings.Join(left, "; ")
	})
	must(t, os.Symlink(dir, filepath.Join(temp, "skep-demo-link")))
	served := home.Dir(filepath.Join(temp, "skep-demo-served", "peer"))
	must(t, os.MkdirAll(string(served), 0o700))
	for _, marked := range []string{dir, filepath.Dir(string(served))} {
		must(t, os.WriteFile(filepath.Join(marked, "this-is-a-skep-demo"), nil, 0o600))
	}
	release, err := served.Lock() // as a daemon does that outlived its demo
	must(t, err)
	defer release()
	living, second := demo("living")
	if strings.Contains(second, first) {
		t.Errorf("%s is still there: %s", first, second)
	}
	third, both := demo("third")
	if !strings.Contains(both, second) {
		t.Errorf("the demo at %s was taken away: %s", second, both)
	}
	if _, err := os.Stat(string(served)); err != nil {
		t.Errorf("a home that is served was taken away: %v", err)
	}
	must(t, living.Process.Signal(os.Interrupt))
	must(t, third.Process.Signal(syscall.SIGHUP)) // its window is closed
	must(t, living.Wait())
	must(t, third.Wait())
	if left := runningBelow(t, temp); len(left) > 0 {
		t.Errorf("they left %q", left)
	}
}

// runningBelow are the commands of processes that name a directory.
func runningBelow(t *testing.T, dir string) (out []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), dir) { // else it has just ended
			out = append(out, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return out
}
