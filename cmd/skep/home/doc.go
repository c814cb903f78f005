// Package home is the state directory of one daemon: where its files lie, the
// lock that keeps a second daemon out, its settings and its keys.
package home
