// Package disk is the local filesystem, as far as the cache writes to it what
// must outlive the process or the power. All such files go through an FS, so
// that tests can put a disk of their own below, which remembers what was
// flushed and in which order, and loses the rest.
//
// What an FS promises is what POSIX does, and no more: content and size of a
// file are on the disk after its Sync or Datasync, a name, new or gone, after
// the SyncDir of its directory. All else may get there in any order or not at
// all.
package disk
