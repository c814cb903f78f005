package harness

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Process is one that a test started and that goes on until it is ended.
type Process struct {
	cmd   *exec.Cmd
	log   string // file with its standard error
	ended chan struct{}
	lines chan string // of its standard output; closed at the end
}

// start begins a process whose standard error goes to a log. It is killed at the
// end of the test that owns it, which may be another one than t, and dies with
// the test process.
func start(t, owner testing.TB, cmd *exec.Cmd, log string) *Process {
	t.Helper()
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	must(t, err)
	defer f.Close()
	cmd.Stderr = f
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	p := &Process{cmd: cmd, log: log, ended: make(chan struct{}), lines: make(chan string, 64)}
	go p.follow(out)
	owner.Cleanup(p.Kill)
	return p
}

// follow reads the output to its end and then waits for the process.
func (p *Process) follow(out io.Reader) {
	defer close(p.ended)
	s := bufio.NewScanner(out)
	for s.Scan() {
		select {
		case p.lines <- s.Text():
		default: // nobody reads that far
		}
	}
	close(p.lines)
	_ = p.cmd.Wait()
}

// PID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed when the process is over.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// Kill ends the process at once (SIGKILL) and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// Stop asks the process to end (SIGTERM) and waits for it.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(60 * time.Second):
		p.Kill()
		t.Errorf("process %d (%s) did not end when asked to", p.PID(), p.cmd)
	}
}

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Code           int
	Took           time.Duration
}

// limit is how long a command may take unless told otherwise.
const limit = 90 * time.Second

// Skep runs the binary with these arguments. One that takes too long fails the
// test.
func Skep(t testing.TB, args ...string) Result {
	t.Helper()
	return Run(t, exec.Command(Binary(), args...))
}

// Run runs a prepared command to its end.
func Run(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.WaitDelay = time.Second // daemons that it leaves behind may have its pipes
	ctx, cancel := context.WithTimeout(Context(t), limit)
	defer cancel()
	began := time.Now()
	must(t, cmd.Start())
	over := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer over()
	err := cmd.Wait()
	r := Result{Stdout: out.String(), Stderr: errs.String(), Code: cmd.ProcessState.ExitCode(), Took: time.Since(began)}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("%s: %v", cmd, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s: no end within %v\n%s%s", cmd, r.Took, r.Stdout, r.Stderr)
	}
	return r
}

// OK fails the test unless the command succeeded, and returns its output.
func (r Result) OK(t testing.TB) string {
	t.Helper()
	if r.Code != 0 {
		t.Fatalf("exit status %d:\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Fails fails the test unless the command ended with this status and told why
// on a single line of standard error that has all of these words.
func (r Result) Fails(t testing.TB, code int, words ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(r.Stderr, "\n"), "\n")
	last := lines[len(lines)-1]
	if r.Code != code {
		t.Errorf("exit status %d, want %d\nstderr: %s\nstdout: %s", r.Code, code, r.Stderr, r.Stdout)
	}
	if !strings.HasPrefix(last, "skep: ") {
		t.Errorf("the last line of stderr does not begin with \"skep: \": %q", r.Stderr)
	}
	for _, l := range lines[:len(lines)-1] {
		// Longer commands tell their steps, daemons in the foreground log.
		if !strings.HasSuffix(l, " …") && !strings.HasPrefix(l, "time=") {
			t.Errorf("more than one line on stderr: %q", r.Stderr)
			break
		}
	}
	for _, w := range words {
		if !strings.Contains(last, w) {
			t.Errorf("the message lacks %q: %s", w, last)
		}
	}
}

// tail is the end of a log.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	const most = 4 << 10
	if len(b) > most {
		b = append([]byte("…"), b[len(b)-most:]...)
	}
	return string(b)
}

// logsBelow are the logs of processes that have their homes in a directory.
func logsBelow(dir string) []string {
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	more, _ := filepath.Glob(filepath.Join(dir, "*", "*.log"))
	return append(logs, more...)
}

// showLogs shows the logs below a directory if the test failed.
func showLogs(t testing.TB, dir string) {
	if !t.Failed() {
		return
	}
	for _, l := range logsBelow(dir) {
		if text := tail(l); text != "" {
			t.Logf("%s:\n%s", l, text)
		}
	}
}

// failOnRaces fails the test if the race detector found something in a process that logs
// below a directory: it says so in the log alone, and the process goes on.
func failOnRaces(t testing.TB, dir string) {
	const most = 16 << 10
	for _, l := range logsBelow(dir) {
		b, _ := os.ReadFile(l) // it may be gone by now
		if at := bytes.Index(b, []byte("WARNING: DATA RACE")); at >= 0 {
			t.Errorf("%s:\n%s", l, b[at:min(len(b), at+most)])
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
