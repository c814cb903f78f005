// Package blockdev is a block device of the kernel that remembers every write
// and every flush, so that a test can take the power away below a local
// filesystem: also what the kernel writes by itself then counts, as files do
// that are passed through.
//
// It is a loop device over a file of a small FUSE filesystem of ours, which a process
// of its own serves: the same test binary, if its TestMain asks for it by Main. It keeps
// what a disk with a cache promises and nothing else: what was written before a
// flush is safe when that returned, each sector is old or new, and the rest may
// get to the disk in any order or not at all. It needs root.
package blockdev
