package state

import (
	"errors"

	"golang.org/x/sys/unix"
)

// isBusy reports whether the index is open elsewhere, which is no damage.
func isBusy(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EACCES)
}
