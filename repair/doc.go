// Package repair is the layer that keeps what was stored from being lost. It
// decides how redundant a pack is made (plan), watches whether it still is
// (health, from what peers state and from audits), and makes good what is
// missing (run).
//
// All deciding is pure: functions of an explicit state, a time and random
// numbers that are handed in, so that a simulation lives through years with
// the code that runs in production. Only package run has a clock and talks to
// peers.
//
// Nothing here needs a key of an owner. What is to be kept is said by leases
// and manifests, what is there by statements, all of them public and free of
// content. docs/repair.md tells the rules and why they are so.
package repair
