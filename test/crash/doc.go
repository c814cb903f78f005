// Package crash takes the process, and the power, away from a drive at every
// moment, and looks at what is there afterwards.
//
// A case is a short sequence of operations. It is done on a tree whose disk is
// test/memdisk, which keeps every write and every flush in order. Then, for
// each moment, the disk is put into the states that a crash at that moment can
// leave, the tree is opened on it, and what it holds is compared with what
// test/model allows: see Allowed. All pairs of operations over a few files are
// tried, in the manner of B3 (Mohan et al., OSDI 2018), and longer sequences at
// random. An operation, a commit or an eviction also happens within another, at each
// moment when that reads, writes, flushes or waits, while files are open: see Nested.
// The disk fills or fails during some operations, while what nobody uses has left memory,
// and the process ends in order: see Struck.
// The same cases are done on a mount, by the calls that programs make,
// whose server is a process of its own that is killed in the midst of them: see
// RunKilled. And the home of the drive is put on a disk of its own, which test/blockdev
// makes, and the power is taken from that, so that all counts that the kernel and
// ext4 do: see Power. A case that fails is made shorter before it is reported, with the
// seed that replays it.
package crash
