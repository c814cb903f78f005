// Package devices judges who else has a drive, by what looks around have found of its
// devices: which of them are there (Presence), and whether there may be commits, or come
// to be, that the newest one here does not follow (View). What such commits need must not
// be given up. docs/architecture.md has the rules, under "Who else has the drive".
//
// Everything here is a pure function of its inputs.
package devices
