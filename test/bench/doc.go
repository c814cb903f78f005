// Command bench measures skep against its limits, each figure as a ratio to
// what was measured in the same run: the steps of the data's way against the
// cipher and memory, the mount against the bare directory, the swarm against a
// bare libp2p stream that ran just before and after. Beside times it prints
// processor time, which depends less on what else the machine does. It starts
// its own swarm of real processes on loopback and leaves nothing behind.
//
// The part "foreground" measures what programs get of the mount while a file is
// uploaded, as a share of what they get otherwise.
//
// Three parts are measured only if they are named: "files", a drive that grows to a
// million of them; "directory", one with a million entries, listed while it changes;
// "image", a large file with holes and one that is written at random.
//
// With -why it also prints what the processor's time of the daemon and of the
// peers went to in each phase.
//
// Usage: bench -skep bin/skep [-size 1GiB] [-tree DIR] [-peers 8] [-only large,back] [-why]
package main
