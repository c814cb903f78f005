// Package served is a process of its own that serves a drive on a mount, without
// peers: what a test needs that uses a drive as programs do, and ends its server
// as a crash would. The same test binary is the server, if its TestMain asks for
// it.
package served
