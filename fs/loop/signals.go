package loop

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lookAgain is how long after a signal that ends no call it is looked whether one came
// that does: the kernel tells of the first only.
const lookAgain = 100 * time.Millisecond

// endFor ends the request with this number as soon as a signal is to end what its thread
// waits for, and returns when it is no longer handled.
func (l *Loop) endFor(unique uint64, thread uint32) {
	for !isToEnd(thread) {
		time.Sleep(lookAgain)
		if _, handled := l.caller(unique); !handled {
			return
		}
	}
	l.cancel(unique)
}

// isToEnd reports whether a signal is to end what a thread waits for. Where nobody can
// ever tell, any does.
func isToEnd(thread uint32) bool {
	if thread == 0 || !procIsOurs() {
		return true
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	if err != nil {
		return !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) // a later look may tell
	}
	return endsBy(string(status))
}

// procIsOurs reports whether /proc knows threads by the numbers that they have for this
// process.
var procIsOurs = sync.OnceValue(func() bool {
	self, err := os.Readlink("/proc/self")
	return err == nil && self == strconv.Itoa(os.Getpid())
})

// signals is a set of signals, as /proc shows it.
type signals uint64

func set(all ...unix.Signal) signals {
	var s signals
	for _, one := range all {
		s |= 1 << (one - 1)
	}
	return s
}

var (
	// asks are signals by which somebody asks a program to end, whether it has a
	// handler for them or not.
	asks = set(unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGKILL)
	// harmless are signals that end no program that has no handler for them.
	harmless = set(unix.SIGCHLD, unix.SIGCONT, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGURG, unix.SIGWINCH)
)

// endsBy reports whether a thread with this /proc/TID/status has a signal waiting that it
// does not hold back, and that is fatal or asks for the end. Mostly the kernel makes a
// SIGKILL of a fatal one; but not of those that dump core, and not while a thread is about
// to handle another.
func endsBy(status string) bool {
	pending := sigsOf(status, "SigPnd") | sigsOf(status, "ShdPnd")
	pending &^= sigsOf(status, "SigBlk") | sigsOf(status, "SigIgn")
	return pending&asks != 0 || pending&^harmless&^sigsOf(status, "SigCgt") != 0
}

// sigsOf reads a set of signals from /proc/TID/status; what is not there is empty.
func sigsOf(status, name string) signals {
	_, after, _ := strings.Cut(status, "\n"+name+":\t")
	digits, _, _ := strings.Cut(after, "\n")
	n, _ := strconv.ParseUint(digits, 16, 64)
	return signals(n)
}
