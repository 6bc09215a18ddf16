package sidecar

import (
	"context"
	"errors"
	"time"
)

// ErrStuck ends a process whose main loop does not turn any more.
var ErrStuck = errors.New("the main loop has made no progress for minutes: ending without revoking, so that the next start adopts the keys")

// guardEvery is how often to look whether the loops turn.
const guardEvery = time.Minute

// guarded does work and gives it up when a key's loop is stuck before the stop: the next start is helped by that,
// and apps keep their tokens. A liveness probe of the platform would end it with SIGTERM, which revokes. It takes two
// looks, since a process that was frozen for long is late everywhere.
func (a *App) guarded(stop context.Context, work func() error) error {
	done := make(chan error, 1)
	go func() { done <- work() }()
	look := time.NewTicker(guardEvery)
	defer look.Stop()
	stopping := stop.Done()
	for stale := 0; ; {
		select {
		case err := <-done:
			return err
		case <-stopping:
			look.Stop() // the end has a time of its own
			stopping = nil
		case <-look.C:
			if a.Alive() {
				stale = 0
			} else if stale++; stale == 2 {
				return ErrStuck
			}
		}
	}
}
