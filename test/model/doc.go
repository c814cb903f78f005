// Package model is a filesystem as POSIX has it, plain and in memory: what a
// drive is compared with, after every operation and after every crash.
//
// An Op is one operation, written down. Tree does it in memory, Drive on a
// cache/tree in process, Mount on any mounted directory; each gives a Result,
// and the three must be alike. A Generator makes operations from a seed.
package model
