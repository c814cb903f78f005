package mount

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// heard is a log that tells of each request to interrupt another.
type heard chan struct{}

func (heard) Enabled(context.Context, slog.Level) bool { return true }
func (h heard) WithAttrs([]slog.Attr) slog.Handler     { return h }
func (h heard) WithGroup(string) slog.Handler          { return h }

func (h heard) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "rx ") && strings.Contains(r.Message, ": INTERRUPT ") {
		h <- struct{}{}
	}
	return nil
}

// TestSignalledCaller: who waits for an answer waits on through signals that do not end
// it, and does not through those that do, or ask for the end.
func TestSignalledCaller(t *testing.T) {
	twice(t)
	told := make(heard, 8)
	dir, _, fs, _ := mounted(t, Options{Trace: true, Log: slog.New(told)})
	for _, c := range []struct {
		signals []syscall.Signal
		end     string // of the program; it says "exit status 0" if the file is there
	}{
		{[]syscall.Signal{unix.SIGUSR1}, "exit status 0"},
		{[]syscall.Signal{unix.SIGCHLD}, "exit status 0"},
		{[]syscall.Signal{unix.SIGSTOP}, "exit status 0"},
		{[]syscall.Signal{unix.SIGUSR1, unix.SIGCHLD}, "exit status 0"},
		{[]syscall.Signal{unix.SIGUSR2}, "signal: user defined signal 2"},
		{[]syscall.Signal{unix.SIGABRT}, "signal: aborted"},
		{[]syscall.Signal{unix.SIGINT}, "exit status 7"},
		{[]syscall.Signal{unix.SIGCHLD, unix.SIGINT}, "exit status 7"},
		{[]syscall.Signal{unix.SIGCHLD, unix.SIGTERM}, "signal: terminated"},
		{[]syscall.Signal{unix.SIGSTOP, unix.SIGKILL}, "signal: killed"},
	} {
		caller := exec.Command("sh", "-c", `ulimit -c 0; trap : USR1 CHLD; trap "exit 7" INT; [ -e "$1" ]`, "sh", filepath.Join(dir, "slow"))
		must(t, caller.Start())
		<-fs.asked
		must(t, caller.Process.Signal(c.signals[0]))
		<-told
		for _, s := range c.signals[1:] {
			must(t, caller.Process.Signal(s))
		}
		if c.end == "exit status 0" {
			select {
			case fs.found <- struct{}{}:
			case <-time.After(time.Minute):
				t.Errorf("after %v nobody waits", c.signals)
			}
		}
		if c.signals[0] == unix.SIGSTOP && len(c.signals) == 1 {
			_, err := unix.Wait4(caller.Process.Pid, nil, unix.WUNTRACED, nil)
			must(t, err)
			must(t, caller.Process.Signal(unix.SIGCONT))
		}
		_ = caller.Wait()
		if end := strings.TrimSuffix(caller.ProcessState.String(), " (core dumped)"); end != c.end {
			t.Errorf("after %v: %s, want %s", c.signals, end, c.end)
		}
	}
}

// threadsDir names, in the environment of a child process, what waitInThreads waits for.
const threadsDir = "SKEP_MOUNT_TEST_THREADS"

// waitInThreads has threads wait for slow names, and becomes another program when it is
// told to.
func waitInThreads(dir string) {
	for n := range 3 {
		go func() {
			var st unix.Stat_t
			panic(unix.Stat(filepath.Join(dir, fmt.Sprint("slow", n)), &st))
		}()
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
	panic(unix.Exec("/bin/true", []string{"true"}, nil))
}

// TestThreadsOfCaller: all threads of a program that wait end with it.
func TestThreadsOfCaller(t *testing.T) {
	twice(t)
	dir, _, fs, _ := mounted(t, Options{})
	for want, end := range map[string]func(p *os.Process, in *os.File) error{
		"signal: interrupt": func(p *os.Process, _ *os.File) error { return p.Signal(unix.SIGINT) },
		"signal: killed":    func(p *os.Process, _ *os.File) error { return p.Signal(unix.SIGKILL) },
		"exit status 0": func(_ *os.Process, in *os.File) error { // it becomes another program
			_, err := in.WriteString("x")
			return err
		},
	} {
		var said bytes.Buffer
		caller := exec.Command("/proc/self/exe")
		caller.Env = append(os.Environ(), threadsDir+"="+dir)
		caller.Stderr = &said
		out, in, err := os.Pipe()
		must(t, err)
		caller.Stdin = out
		must(t, caller.Start())
		for range 3 {
			<-fs.asked
		}
		must(t, end(caller.Process, in))
		_ = caller.Wait()
		if got := caller.ProcessState.String(); got != want {
			t.Errorf("it ended with %s, want %s; it said %s", got, want, &said)
		}
		in.Close()
		out.Close()
	}
}
