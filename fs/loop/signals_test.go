package loop

import (
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestEndsBy: what is fatal ends a call, and what asks for the end; nothing else does.
func TestEndsBy(t *testing.T) {
	for _, c := range []struct {
		what, sets string // SigPnd, ShdPnd, SigBlk, SigIgn and SigCgt, without most zeros
		ends       bool
	}{
		{"no signal: another thread was stopped", "0 0 0 0 0", false},
		{"SIGKILL, as the kernel makes of SIGINT", "100 2 0 0 0", true},
		{"SIGTERM after another signal", "0 14000 0 0 10000", true},
		{"SIGUSR1", "0 200 0 0 0", true},
		{"SIGUSR1 of one thread", "200 0 0 0 0", true},
		{"SIGABRT", "0 20 0 0 0", true},
		{"a real-time signal", "0 8000000000000000 0 0 0", true},
		{"SIGUSR1, handled", "0 200 0 0 200", false},
		{"SIGUSR1, held back", "0 200 200 0 0", false},
		{"SIGALRM, handled", "0 2000 0 0 2000", false},
		{"SIGHUP, handled", "0 1 0 0 1", false},
		{"SIGCHLD, handled", "0 10000 0 0 10000", false},
		{"SIGCHLD, of a traced process", "0 10000 0 0 0", false},
		{"SIGWINCH", "0 8000000 0 0 0", false},
		{"SIGTSTP", "0 80000 0 0 0", false},
		{"SIGSTOP and SIGCONT", "40000 20000 0 0 0", false},
		{"SIGINT, handled", "0 2 0 0 2", true},
		{"SIGQUIT, handled", "0 4 0 0 4", true},
		{"SIGTERM, handled, and SIGCHLD", "0 14000 0 0 14000", true},
		{"SIGINT, held back", "0 2 2 0 0", false},
		{"SIGINT, ignored, of a traced process", "0 2 0 2 0", false},
	} {
		status := "Name:\tx\nSigQ:\t1/2\n"
		for i, digits := range strings.Fields(c.sets) {
			name := []string{"SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"}[i]
			status += name + ":\t" + strings.Repeat("0", 16-len(digits)) + digits + "\n"
		}
		if endsBy(status+"CapInh:\t0\n") != c.ends {
			t.Errorf("%s: ends: %v", c.what, !c.ends)
		}
	}
}

// TestSignals: a request goes on after a signal that does not end its caller, and ends by
// a later one that does.
func TestSignals(t *testing.T) {
	caller := exec.Command("sleep", "1000")
	must(t, caller.Start())
	defer func() {
		_ = caller.Process.Kill()
		_ = caller.Wait()
	}()
	pid := caller.Process.Pid
	must(t, unix.Kill(pid, unix.SIGSTOP)) // signals wait from then on
	_, err := unix.Wait4(pid, nil, unix.WUNTRACED, nil)
	must(t, err)
	synctest.Test(t, func(t *testing.T) {
		answered, asks := &worker{cancel: make(chan struct{})}, &worker{cancel: make(chan struct{})}
		l := &Loop{all: map[*worker]struct{}{answered: {}, asks: {}}}
		for i, w := range []*worker{answered, asks} {
			unique := uint64(2 * (i + 1))
			w.caller.Store(uint32(pid))
			w.busy.Store(unique)
			if !l.interrupt(unique) {
				t.Fatal("it is not handled")
			}
		}
		for _, s := range []unix.Signal{unix.SIGCHLD, unix.SIGWINCH, unix.SIGTSTP} {
			must(t, unix.Kill(pid, s))
			time.Sleep(lookAgain)
			synctest.Wait()
			if asks.busy.Load() != 4 {
				t.Fatalf("signal %v ended the request", s)
			}
		}
		answered.done(2)
		must(t, unix.Kill(pid, unix.SIGTERM))
		<-asks.cancel
		l.workers.Wait()
		if answered.busy.Load() != 0 {
			t.Error("a request that was answered is interrupted")
		}
	})
}
