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
//
// Where another process is to follow, nobody knows when: the key is made to live for firstLife at most, which that one
// extends.
func (a *Agent) Init(stop, kill context.Context) error {
	a.kill, a.brief = kill, true
	defer a.watch(stop)()
	if err := a.begin(stop); err != nil {
		return a.giveUp(stop, err)
	}
	if a.endRow(); a.unsaved { // what follows is not a repetition
		a.saveSoon()
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
	return a.end(stop)
}

// notOpenError is an error for which nothing was begun.
type notOpenError struct{ error }

func (e notOpenError) Unwrap() error { return e.error }

// begin works until there is a published key, for as long as Init may.
func (a *Agent) begin(stop context.Context) error {
	a.hurried, a.diskWait = true, stop
	if err := a.open(stop); err != nil {
		return notOpenError{err}
	}
	a.holdBack(stop)
	ctx, cancel := context.WithTimeoutCause(stop, a.cfg.InitTimeout, ErrInitTimeout)
	defer cancel()
	err := a.loop(ctx, true)
	if err != nil && errors.Is(context.Cause(ctx), ErrInitTimeout) {
		name, cause := a.hanging()
		err = fmt.Errorf("%w: gave up after %v while trying to %s", ErrInitTimeout, a.cfg.InitTimeout, name)
		if cause != nil {
			err = fmt.Errorf("%w (%w)", err, cause)
		}
	}
	return err
}

// giveUp ends what begin could not: what was made is revoked, and an adopted key left alone.
func (a *Agent) giveUp(stop context.Context, err error) error {
	if errors.As(err, new(notOpenError)) {
		return err
	}
	if errors.Is(context.Cause(stop), ErrHandOver) {
		return a.handOver()
	}
	if a.journal.Mints.Again = stop.Err() == nil; !a.journal.Mints.Again { // else a platform starts it again
		a.endRow()
	}
	if kept := a.inUse(); stop.Err() == nil && len(kept) > 0 {
		for _, h := range kept {
			a.log.Warn("leaving the key of the last start and its outputs as they are", h.attrs()...)
		}
		return errors.Join(err, a.shutdownBut(kept...))
	}
	return errors.Join(err, a.shutdown("there is no key to rely on"))
}

// inUse are the keys of an earlier start that the app may read at this moment.
func (a *Agent) inUse() []*holding {
	if c := a.current; c != nil && c.adopted && !c.health.dead() {
		return []*holding{c}
	}
	var list []*holding
	for _, h := range a.retiring {
		if h.waits {
			list = append(list, h)
		}
	}
	return list
}

// settled reports whether Init is done: the app has a verified key and nothing is on its way.
func (a *Agent) settled() bool {
	c := a.current
	return c != nil && c.health == accepted && a.successor == nil && (c.rec.ID != 0 || c.limits.notListed) && a.damage == nil
}

// hopeless reports whether Init should give up: the credential is refused or cannot mint, or the
// same request was wrong three times.
func (a *Agent) hopeless(s step, err error) bool {
	class, _ := key.ClassOf(err)
	switch class {
	case key.Refused, key.FreshLogin:
		return a.current == nil || a.current.health.dead()
	case key.Wrong:
		return (a.current == nil || a.current.health.dead()) && a.steps[s] != nil && a.steps[s].failures >= 2 // before this one
	}
	return false
}
