package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

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
	a.resumeBudget(ctx)
	err := a.loop(ctx, true)
	if err == nil {
		a.forgetBudget()
	}
	if err != nil && errors.Is(context.Cause(ctx), ErrInitTimeout) {
		err = fmt.Errorf("%w: gave up after %v while trying to %s", ErrInitTimeout, a.cfg.InitTimeout, a.hanging())
	}
	return err
}

// giveUp ends what begin could not: what was made is revoked, and an adopted key left alone.
func (a *Agent) giveUp(stop context.Context, err error) error {
	if errors.As(err, new(notOpenError)) {
		return err
	}
	defer a.carryBudget()
	switch {
	case errors.Is(context.Cause(stop), ErrHandOver):
		return a.handOver()
	}
	if kept := a.inUse(); stop.Err() == nil && len(kept) > 0 {
		for _, h := range kept {
			a.log.Warn("leaving the key of the last start and its outputs as they are", h.attrs()...)
		}
		return errors.Join(err, a.shutdownBut(kept...))
	}
	return errors.Join(err, a.shutdown("there is no key to rely on"))
}

// budgetFile is where an Init that failed leaves its request budget to the next.
func (a *Agent) budgetFile() *File {
	name := "budget.json"
	if a.cfg.Slot != "" {
		name = "budget-" + a.cfg.Slot + ".json"
	}
	return a.cfg.State.File(name)
}

// resumeBudget goes on with what earlier starts that failed have left, and waits, if that is little, until there is
// enough for a whole key: one after the other, the few requests would come to nothing.
func (a *Agent) resumeBudget(ctx context.Context) {
	var c carriedBudget
	raw, err := a.budgetFile().Load()
	if err != nil || len(raw) == 0 || json.Unmarshal(raw, &c) != nil {
		return
	}
	a.cfg.Budget.resume(c, a.clock.now().wall)
	if wait := a.cfg.Budget.untilHas(shortestWay + 2); wait > 0 {
		a.log.Warn("earlier starts have failed and used up the request budget: waiting before anything is sent", "for", wait.Round(time.Second))
		pause(ctx, wait)
	}
}

func (a *Agent) carryBudget() {
	raw, err := json.Marshal(a.cfg.Budget.carry(a.clock.now().wall))
	if err == nil {
		err = a.budgetFile().Save(raw)
	}
	if err != nil {
		a.log.Warn("the request budget could not be left to the next start", "error", err)
	}
}

// forgetBudget lets the next start begin afresh: this one went well.
func (a *Agent) forgetBudget() {
	if raw, err := a.budgetFile().Load(); err != nil || len(raw) > 0 {
		_ = a.budgetFile().Save(nil)
	}
}

// inUse are the keys of an earlier start that the app may read at this moment.
func (a *Agent) inUse() []*holding {
	if c := a.current; c != nil && c.adopted && !c.dead {
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
