package key

import (
	"errors"
	"time"
)

// Class says what a failure at balena means for the caller: whether to try again, and when.
type Class int

// The classes of failure. The zero value, Unknown, is for errors that are not about balena at
// all (a full disk, a cancelled context).
const (
	Unknown Class = iota
	// Outage: the server was not reached, or not healthy. Nothing took effect. Try again later.
	Outage
	// Busy: told to wait, by the server or by our own request budget; RetryAfter says how long.
	Busy
	// Ambiguous: a write was sent and its fate is unknown. Settle it before anything else.
	Ambiguous
	// Gone: the key is dead, and a second opinion confirmed it. Asking again changes nothing.
	Gone
	// FreshLogin: minting needs a login less than 20 minutes old and the credential has no
	// password to make one. Try again when the credential changes.
	FreshLogin
	// Refused: balena refused the credential while it was provably healthy. Try again when the
	// credential changes, or after an hour: ten refused logins lock an account out.
	Refused
	// Wrong: the request cannot work as it is (not found, forbidden, malformed, redirected).
	// Somebody has to change something; try again slowly.
	Wrong
	// Unrevocable: the server gives this credential no way to revoke or extend the key. It
	// dies at its expiry.
	Unrevocable
)

var classNames = [...]string{"unknown", "outage", "busy", "ambiguous", "gone", "fresh-login", "refused", "wrong", "unrevocable"}

// String returns the class's name as metrics and logs show it.
func (c Class) String() string {
	if c < 0 || int(c) >= len(classNames) {
		return classNames[Unknown]
	}
	return classNames[c]
}

// Failure is an error that knows its class. balena.Error is one.
type Failure interface {
	error
	FailureClass() Class
	// RetryAfter is how long to wait at least before the next try; 0 leaves it to the caller.
	RetryAfter() time.Duration
}

// ClassOf returns the class of the first Failure in err's chain, and the wait it asks for;
// Unknown and 0 if there is none, or err is nil.
func ClassOf(err error) (Class, time.Duration) {
	if f, ok := errors.AsType[Failure](err); ok {
		return f.FailureClass(), f.RetryAfter()
	}
	return Unknown, 0
}

// Is reports whether err is a failure of class c.
func Is(err error, c Class) bool {
	got, _ := ClassOf(err)
	return err != nil && got == c
}
