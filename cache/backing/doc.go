// Package backing keeps the files that hold content on this device.
//
// A backing file is a plain, sparse file with a number of its own; which inode
// it belongs to, the inode's row says. Truncating an inode gives it a new
// number, so that content which a commit is still reading, or which power loss
// could bring back, is never overwritten. The content is in clear.
package backing
