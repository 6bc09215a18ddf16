package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/balena-injector/injector/key"
)

// Init adopts or mints a key and publishes it, for a later Run to adopt. If it does not succeed
// within Config.InitTimeout, or cannot succeed, it revokes what it made and returns why. A stop
// counts as failure.
func (a *Agent) Init(stop, kill context.Context) error {
	a.kill = kill
	defer a.watch(stop)()
	if err := a.begin(stop); err != nil {
		return a.giveUp(stop, err)
	}
	return nil
}

// Supervise is Init and then Run in one: it calls ready, from this goroutine, once there is a key to
// rely on, and gives up as Init does if that does not succeed.
func (a *Agent) Supervise(stop, kill context.Context, ready func()) error {
	a.kill = kill
	defer a.watch(stop)()
	if err := a.begin(stop); err != nil {
		return a.giveUp(stop, err)
	}
	a.hurried = false
	ready()
	_ = a.loop(stop, false)
	if a.cfg.KeepOnExit {
		return a.handOver()
	}
	return a.shutdown(context.Cause(stop).Error())
}

// notOpenError is an error for which nothing was begun.
type notOpenError struct{ error }

func (e notOpenError) Unwrap() error { return e.error }

// begin works until there is a published key, for as long as Init may.
func (a *Agent) begin(stop context.Context) error {
	ctx, cancel := context.WithTimeoutCause(stop, a.cfg.InitTimeout, ErrInitTimeout)
	defer cancel()
	a.hurried = true
	if err := a.open(ctx); err != nil {
		return notOpenError{err}
	}
	err := a.loop(ctx, true)
	if err != nil && errors.Is(context.Cause(ctx), ErrInitTimeout) {
		err = fmt.Errorf("%w: gave up after %v while trying to %s", ErrInitTimeout, a.cfg.InitTimeout, a.hanging())
	}
	return err
}

// giveUp ends what begin could not: what was made is revoked, and an adopted key left alone.
func (a *Agent) giveUp(stop context.Context, err error) error {
	switch {
	case errors.As(err, new(notOpenError)):
		return err
	case errors.Is(context.Cause(stop), ErrHandOver):
		return a.handOver()
	case stop.Err() == nil && a.current != nil && a.current.adopted && !a.current.dead:
		a.log.Warn("leaving the adopted key and its outputs as they are", a.current.attrs()...)
		return errors.Join(err, a.shutdownBut(a.current))
	}
	return errors.Join(err, a.shutdown("there is no key to rely on"))
}

// settled tells whether Init is done: the app has a verified key and nothing is on its way.
func (a *Agent) settled() bool {
	return a.current != nil && a.current.verified && !a.current.dead && a.successor == nil && (a.current.rec.ID != 0 || a.current.unlisted) &&
		a.cfg.Publisher.Intact(a.publication(a.current)) == nil
}

// hopeless tells whether Init should give up: the credential is refused or cannot mint, or the
// same request was wrong three times.
func (a *Agent) hopeless(s step, err error) bool {
	class, _ := key.ClassOf(err)
	switch class {
	case key.Refused, key.FreshLogin:
		return a.current == nil || a.current.dead
	case key.Wrong:
		return (a.current == nil || a.current.dead) && a.steps[s] != nil && a.steps[s].failures >= 2 // before this one
	}
	return false
}
