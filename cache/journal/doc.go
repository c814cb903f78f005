// Package journal is an append-only log of records: what has been appended
// survives the end of the process, what has been synced survives power loss.
//
// The log is a row of preallocated segment files. A record carries its sequence
// number, a checksum over it and its payload, and the number up to which the
// log was known to be on the disk when it was written. That last number tells a
// torn tail, which is the normal end after power loss, from damage: if a record
// cannot be read although a later one says that it was on the disk, the log is
// damaged, and Open refuses it rather than silently dropping what was promised.
// It does so, too, when the log ends before a record that its caller knows to have been
// on the disk.
//
// The format is in docs/formats.md.
package journal
