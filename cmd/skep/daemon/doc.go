// Package daemon is the process that serves a home: a peer of the swarm and, if
// the home has one, a drive with its mounts. It wires the layers together and
// holds no logic of theirs.
package daemon
