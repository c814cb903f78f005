package client

import (
	"context"
	"errors"
	"fmt"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/record"
	"skep/net/wire"
)

// How a call can fail. Every error of a call is an *Error that wraps one of
// these, or the error of the caller's context.
var (
	// ErrAbsent says that the holder does not have what was asked for.
	ErrAbsent = errors.New("absent")
	// ErrRefused says that the holder will not do it; a *RefusedError has the
	// reason.
	ErrRefused = errors.New("refused")
	// ErrFull says that the holder has no room.
	ErrFull = errors.New("full")
	// ErrCrowded says that the holder takes no more groups; it may have room for
	// shards of those that it has.
	ErrCrowded = errors.New("crowded")
	// ErrBusy says that the holder has too much to do, now and after some
	// attempts.
	ErrBusy = errors.New("busy")
	// ErrUnreachable says that the peer could not be dialled, went away, or was
	// slower than the options allow. It says nothing about what it holds.
	ErrUnreachable = errors.New("unreachable")
	// ErrWaited says that the caller's context ended before the call began, which
	// waited for other calls from here, or while shards filled the connection: that says
	// nothing of the peer.
	ErrWaited = errors.New("waited for other calls")
	// ErrLied says that the holder sent what cannot be true: bytes that do not
	// have the manifest's root, a word with a bad signature or about something
	// else, an answer out of form. It is the peer's fault.
	ErrLied = errors.New("lied")
)

// RefusedError is a refusal with its reason, in the holder's words.
type RefusedError struct{ Reason string }

// Error gives the reason.
func (e *RefusedError) Error() string { return ErrRefused.Error() + ": " + e.Reason }

// Is makes a RefusedError an ErrRefused.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// Error says which call on which peer failed.
type Error struct {
	Op   wire.Kind
	Peer group.PeerKey
	Err  error
}

// Error names the call, the peer and the cause.
func (e *Error) Error() string { return fmt.Sprintf("%v of peer %v: %v", e.Op, e.Peer, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// judge gives the cause of a failure its kind. What failed after the caller's
// context had ended is nobody's fault.
func judge(ctx context.Context, err error) error {
	var r *wire.Refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &r):
		return refusal(r)
	case isLie(err):
		return fmt.Errorf("%w: %w", ErrLied, err)
	case errors.Is(err, ErrWaited):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

func refusal(r *wire.Refusal) error {
	switch r.Status {
	case wire.Absent:
		return ErrAbsent
	case wire.Full:
		return fmt.Errorf("%w: %s", ErrFull, r.Reason)
	case wire.Busy:
		return fmt.Errorf("%w: %s", ErrBusy, r.Reason)
	case wire.Crowded:
		return fmt.Errorf("%w: %s", ErrCrowded, r.Reason)
	case wire.Malformed:
		return &RefusedError{Reason: "malformed: " + r.Reason}
	}
	return &RefusedError{Reason: r.Reason}
}

// errOther says that a word is about something that was not asked for.
var errOther = errors.New("word about something else")

func isLie(err error) bool {
	for _, lie := range []error{erasure.ErrProof, record.ErrSignature, record.ErrFormat, group.ErrInvalid, wire.ErrMalformed, errOther} {
		if errors.Is(err, lie) {
			return true
		}
	}
	return false
}
