package home

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// AccessError says why a user cannot use a home that is there.
type AccessError struct {
	Dir  Dir
	Says string // of the directory
	Do   string // about it
	Err  error  // what the system said; may be nil
}

func (e *AccessError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("home %s %s: %s", e.Dir, e.Says, e.Do)
	}
	return fmt.Sprintf("home %s %s (%v): %s", e.Dir, e.Says, e.Err, e.Do)
}

// Unwrap returns what the system said.
func (e *AccessError) Unwrap() error { return e.Err }

// Accessible returns an *AccessError if something is there that this user cannot use
// as a home.
func (d Dir) Accessible() error {
	st, err := os.Stat(string(d))
	if errors.Is(err, unix.ENOTDIR) || err == nil && !st.IsDir() {
		return &AccessError{Dir: d, Says: "is not a directory", Do: "choose another one with --home"}
	}
	denied := unix.Access(string(d), unix.R_OK|unix.W_OK|unix.X_OK)
	switch {
	case !errors.Is(denied, unix.EACCES):
		return nil
	case err == nil && isOwn(st):
		return &AccessError{d, fmt.Sprintf("is yours, but has mode %04o", st.Mode().Perm()), "make it usable with chmod 700", denied}
	}
	return &AccessError{d, "is another user's", "become the user whom it belongs to, or choose another one with --home", denied}
}

// isOwn reports whether a file belongs to this user.
func isOwn(st os.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Geteuid()
}
