package cli

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"
)

// Under nohup a command goes on when the terminal is gone.
func TestHangupThatIsIgnored(t *testing.T) {
	if !signal.Ignored(syscall.SIGHUP) { // else the test itself runs so
		if !slices.Contains(endings(), os.Signal(syscall.SIGHUP)) {
			t.Error("a hangup does not end a command in order")
		}
		signal.Ignore(syscall.SIGHUP)
		defer signal.Reset(syscall.SIGHUP)
	}
	if slices.Contains(endings(), os.Signal(syscall.SIGHUP)) {
		t.Error("a hangup ends a command that is to go on")
	}
}
