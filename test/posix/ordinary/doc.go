// Package ordinary runs a test a second time as an ordinary user who may mount
// with fusermount3.
//
// Tests run as root on most build machines, while people mount as themselves;
// what differs is who calls mount(2), what unmounting may do, and that no file
// is passed through. The second run is a process of its own, in a mount
// namespace of its own, where /dev/fuse is open to all as it is on most
// machines. Nothing outside of that namespace changes.
package ordinary
