// Package control is how commands talk to a running daemon: JSON over HTTP on
// a Unix socket in the home, which only the home's owner can open.
package control
