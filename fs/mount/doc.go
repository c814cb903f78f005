// Package mount brings a filesystem to a directory and takes it away again.
//
// Mounting has three steps. The directory is checked, so that a mistake ends in
// a sentence that says what to do instead of an errno; a mount that a crashed
// daemon left there is cleaned up on the way. Then the kernel is asked to
// attach: by mount(2) where we may, which also allows passthrough, else by the
// setuid program fusermount3; either way the result is a descriptor of
// /dev/fuse. Last, a request loop takes the descriptor over: fs/loop, or go-fuse's
// own for comparison. It is hidden behind Server.
//
// Unmounting is polite or forced. Polite refuses while programs use the drive,
// and names them. Forced detaches the drive at once and ends the system calls
// that wait for it.
//
// The process that serves a mount must not use files in it: a request of its
// own would wait for itself. Nothing here does; what has to be known of a mount
// is read from /proc.
package mount
