// Package memdisk is a local filesystem in memory that remembers every change
// and every flush in order, so that a test can go back to any moment and take
// the power away: what no flush had ordered to the disk by then is kept,
// dropped or torn as the test likes.
//
// It keeps what POSIX promises and nothing else: a file's content and size are
// safe after a flush of the file, a name after a flush of its directory; the
// rest may reach the disk in any order.
package memdisk
