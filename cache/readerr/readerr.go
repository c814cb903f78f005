package readerr

import "errors"

var (
	// ErrLost says that fewer than k shards of a pack exist as far as anybody
	// answers, so that it cannot be rebuilt.
	ErrLost = errors.New("lost: too few shards are left")
	// ErrCorrupt says that bytes were there, and were not the ones asked for.
	ErrCorrupt = errors.New("corrupt")
	// ErrUnreachable says that those who should have the bytes did not answer
	// in time.
	ErrUnreachable = errors.New("unreachable: too few peers answer")
	// ErrAbsent says that nothing is known under that name.
	ErrAbsent = errors.New("absent")
)
