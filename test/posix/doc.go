// Package posix tests what programs see of a drive: a real tree in a directory
// of its own, mounted by the kernel, used through system calls and by the
// programs that people use.
//
// The mount is served by a process of its own, so that a test may use files as
// any program does, and may kill the server. Most tests run with files passed
// through to the kernel and with all of them going through the daemon; those
// where it can differ also run as an ordinary user, who mounts with fusermount3.
package posix
