package mount

import (
	"errors"
	"fmt"
	"strings"
)

// Why a directory cannot be mounted on or unmounted. A *PointError carries one
// of them, with the directory and what to do.
var (
	ErrNotExist     = errors.New("no such directory")
	ErrNotDir       = errors.New("not a directory")
	ErrNotEmpty     = errors.New("directory is not empty")
	ErrMounted      = errors.New("already mounted")
	ErrDead         = errors.New("a dead mount is in the way")
	ErrInsideHome   = errors.New("lies inside the daemon's own state directory")
	ErrHomeInside   = errors.New("holds the daemon's own state directory")
	ErrNoDevice     = errors.New("this system offers no FUSE")
	ErrNoHelper     = errors.New("fusermount3 is missing")
	ErrPermission   = errors.New("permission denied")
	ErrAllowOther   = errors.New("allow_other is not allowed here")
	ErrRefused      = errors.New("the system refused")
	ErrNotMounted   = errors.New("not mounted")
	ErrBusy         = errors.New("busy")
	ErrStillServing = errors.New("detached, but programs still hold files of it")
)

// What can be wrong with mount options. An *OptionError carries one of them.
var (
	ErrUnknownOption = errors.New("unknown mount option")
	ErrOptionValue   = errors.New("bad value of mount option")
)

// PointError says why a directory cannot be mounted on or unmounted.
type PointError struct {
	Op     string // "mount", "remount" or "unmount"
	Dir    string
	Reason error  // one of the reasons above
	Do     string // what the user can do about it; may be empty
	Err    error  // what the system said; may be nil
}

func (e *PointError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %v", e.Op, e.Dir, e.Reason)
	if e.Err != nil {
		fmt.Fprintf(&b, " (%v)", e.Err)
	}
	if e.Do != "" {
		b.WriteString("; " + e.Do)
	}
	return b.String()
}

// Unwrap returns the reason and what the system said.
func (e *PointError) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Reason}
	}
	return []error{e.Reason, e.Err}
}

// OptionError says which mount option cannot be had, and which can.
type OptionError struct {
	Option string
	Reason error // ErrUnknownOption or ErrOptionValue
	Do     string
}

func (e *OptionError) Error() string { return fmt.Sprintf("%v %q; %s", e.Reason, e.Option, e.Do) }

// Unwrap returns the reason.
func (e *OptionError) Unwrap() error { return e.Reason }

// Use is a process that keeps a mount busy, or a mount on top of it.
type Use struct {
	PID  int    // 0 for a mount
	Name string // of the program
	What string // such as "working directory /mnt/a"
}

func (u Use) String() string {
	if u.PID == 0 {
		return u.What
	}
	return fmt.Sprintf("%s (%d: %s)", u.Name, u.PID, u.What)
}

// BusyError says who uses a mount that was to be unmounted.
type BusyError struct {
	Dir  string
	Uses []Use
	// Hidden says that there are processes that we may not look into.
	Hidden bool
}

// maxNamed is how many uses the message of a BusyError names.
const maxNamed = 8

func (e *BusyError) Error() string {
	var by []string
	for _, u := range e.Uses[:min(len(e.Uses), maxNamed)] {
		by = append(by, u.String())
	}
	if more := len(e.Uses) - maxNamed; more > 0 {
		by = append(by, fmt.Sprintf("%d more", more))
	}
	if e.Hidden {
		by = append(by, "perhaps processes that cannot be seen from here")
	}
	if len(by) == 0 {
		by = []string{"a process that ended meanwhile or that cannot be seen from here"}
	}
	return fmt.Sprintf("unmount %s: busy: used by %s; close them, or unmount with --force, which ends their access at once",
		e.Dir, strings.Join(by, ", "))
}

// Unwrap returns ErrBusy.
func (e *BusyError) Unwrap() error { return ErrBusy }
