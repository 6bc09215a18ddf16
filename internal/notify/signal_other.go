//go:build !linux

package notify

import (
	"context"
	"errors"
	"syscall"
)

// Signal is for Linux only.
type Signal struct {
	Signal  syscall.Signal
	Process string
}

// String names signal and process.
func (s *Signal) String() string { return s.Signal.String() + " to " + s.Process }

// Tell fails.
func (s *Signal) Tell(context.Context, Event) error {
	return errors.New("processes can be found by name on Linux only")
}
