package state

import (
	"errors"

	"golang.org/x/sys/unix"
)

// passing are reasons for which an index cannot be opened and that say nothing
// against what it holds: it is open elsewhere, or this process may not, or the
// machine has no room, memory or files left.
var passing = []unix.Errno{
	unix.EAGAIN, unix.EACCES, unix.EPERM, unix.EROFS,
	unix.ENOSPC, unix.EDQUOT, unix.ENOMEM, unix.EMFILE, unix.ENFILE,
}

// isPassing reports whether err is no damage of the index.
func isPassing(err error) bool {
	for _, reason := range passing {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// isShort reports whether the machine had no memory or files left for a moment.
func isShort(err error) bool {
	return errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}
