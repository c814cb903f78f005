// Package adapter translates between the kernel's FUSE requests and the tree.
//
// It holds nothing of the filesystem but what belongs to the kernel's side: a
// table of open files and, for each inode that is open, how the kernel reads and
// writes it. Node ids are the tree's inode numbers, so that looking up a million
// files costs nothing here.
//
// # Who knows what
//
// The daemon is the only authority for the drive on this machine, and the kernel
// hears of every change because it asked for it. So names, the absence of
// names, attributes and content may be remembered by the kernel as long as it
// likes. One thing happens behind its back: stores into mapped files that are
// passed through. While such a file is open for writing its attributes are given
// out without permission to remember them, and what it remembered is taken back
// by a notice.
//
// # Open modes
//
// The kernel reads and writes an inode in one of three ways: through its page
// cache and us, past the page cache and through us (O_DIRECT), or straight into
// the backing file (passthrough). It refuses to mix passthrough with the first
// two on one inode. So the first open decides, by what the tree says, and all
// further opens follow until the last is closed, and mapped by nobody any more: a
// mapping of a file that is passed through outlives its descriptor without our
// hearing of it (see mapped.go). If the kernel refuses a backing
// file, passthrough ends for the whole mount, and everything goes through us.
//
// # Errors
//
// One table maps the tree's errors to errnos; what is not in it is a fault or a
// bad disk, and becomes EIO with a line in the log. A request whose caller was
// killed ends with EINTR.
package adapter
