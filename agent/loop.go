package agent

import (
	"context"
	"errors"
	"time"

	"github.com/balena-injector/injector/turn"
)

// loop runs the steps that are due until ctx is done, or, if once, until there is something to
// leave to Run or a failure that trying again will not mend. Run rests instead of sleeping.
func (a *Agent) loop(ctx context.Context, once bool) error {
	for {
		wait, done, err := a.turnOnce(ctx, once)
		if done {
			return err
		}
		if wait > 0 {
			a.sleep(ctx, wait)
		}
	}
}

// turnOnce takes up what has happened and runs the step that is due, or returns how long none is. done reports that the
// loop is to end.
func (a *Agent) turnOnce(ctx context.Context, once bool) (wait time.Duration, done bool, err error) {
	now := a.clock.now()
	a.beat.Store(int64(now.mono))
	if ctx.Err() != nil {
		a.giveBack()
		return 0, true, context.Cause(ctx)
	}
	a.takeUp(ctx, now)
	a.publishStatus("running")
	if once && a.settled() || a.draining && len(a.all()) == 0 {
		a.giveBack()
		return 0, true, nil
	}
	t, wait := a.next(now)
	if wait == 0 && !a.mayRun(t, now) {
		if t, wait = a.nextLocal(now); wait > 0 {
			wait = min(wait, a.nextEvent(now))
		}
	} else if wait > 0 {
		a.giveBack()
	}
	if wait > 0 && !a.cfg.Crowd.Attended && now.mono != a.inspected.mono && a.look(ctx, now) {
		return 0, false, nil // what is wrong with the outputs is mended before the sleep
	}
	if wait > 0 {
		return a.untilExpiry(now, wait), false, nil
	}
	err = a.try(ctx, t, now)
	if t.about != nil && (err == nil || errors.Is(err, turn.ErrAlone)) {
		if t.about.alone = t.about.alone.after(t.kind, err != nil); err != nil {
			return 0, false, nil // it is due again, with a turn of its own: neither a failure nor a success
		}
	}
	if once && a.hopeless(t.step, err) {
		return 0, true, err
	}
	a.note(ctx, t.step, now, err)
	return 0, false, nil
}

// takeUp notes what has happened since the last turn.
func (a *Agent) takeUp(ctx context.Context, now instant) {
	a.follow()
	if a.lookAsked.Swap(false) {
		a.inspected = instant{}
	}
	a.inspect(ctx, now)
	a.renewNow = a.renewAsked.Swap(false) || a.renewNow
	if a.tryAsked.Swap(false) {
		a.tendDone, a.nextTend, a.credentialNews = false, now, true
	}
	a.retime()
	a.noteExpiry(now)
	a.noteLongLife(now)
	a.forgetStranded()
	a.noteSighting(now)
}

// try runs a step. One that hangs must not keep another from being tried before the app's key expires.
func (a *Agent) try(ctx context.Context, t task, now instant) error {
	if !t.kind.local() {
		defer a.giveBack()
		ctx = a.withTurn(ctx)
	}
	a.turn = 0
	if at, ok := a.lastCall(now.mono); ok {
		a.turn = at - now.mono
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.turn)
		defer cancel()
	}
	return a.work(ctx, t)
}

// work runs a step, on one of the goroutines that do so for all agents. What is part of a batch waits for others, and so
// for no such goroutine.
func (a *Agent) work(ctx context.Context, t task) (err error) {
	workers := a.cfg.Crowd.Requests
	switch {
	case t.kind.local():
		workers = a.cfg.Crowd.Files
	case t.about != nil && a.ticket != nil && !a.ticket.Alone():
		return t.run(ctx)
	}
	if e := workers.Do(ctx, func() { err = t.run(ctx) }); e != nil {
		return e
	}
	return err
}

// untilExpiry shortens a sleep that goes beyond the expiry of the app's key.
func (a *Agent) untilExpiry(now instant, wait time.Duration) time.Duration {
	wait = min(wait, a.longestSleep(now))
	if a.current != nil {
		if left := a.left(a.current, now); left > 0 {
			wait = min(wait, left+time.Millisecond)
		}
	}
	return wait
}

// longestSleep bounds how late the agent is for what nobody tells it of.
func (a *Agent) longestSleep(now instant) time.Duration {
	if !a.cfg.Crowd.Attended {
		return maxSleep
	}
	if left := longLife - (now.mono - a.began); left > 0 && a.journal.Mints != (mintRow{}) {
		return min(attendedSleep, left)
	}
	return attendedSleep
}

// follow sees to it that the journal is in the directory where the next start looks for it, and says
// who was told.
func (a *Agent) follow() {
	a.unsaved = a.unsaved || a.cfg.Store.Displaced()
	a.noteAcknowledged()
}

// inspectPause is how long what was seen of the outputs counts: the steps of one turn of events look once.
const inspectPause = time.Second

// inspect looks at the outputs of the app's key, unless it has just done so.
func (a *Agent) inspect(ctx context.Context, now instant) {
	if a.inspected.isZero() || !a.cfg.Crowd.Attended && now.mono-a.inspected.mono >= inspectPause {
		_ = a.cfg.Crowd.Files.Do(ctx, func() { a.look(ctx, now) }) // else at the next turn
	}
}

// look looks at the outputs of the app's key, and reports whether they are in another condition than before.
func (a *Agent) look(ctx context.Context, now instant) (changed bool) {
	if a.shown {
		a.shown = a.showsSuccessor(ctx) // it may be given up, or somebody removes the file
	}
	if a.current == nil {
		return false
	}
	before := a.damage
	a.damage, a.inspected = a.cfg.Publisher.Inspect(ctx, a.publication(a.current)), now
	return (before == nil) != (a.damage == nil)
}

// showsSuccessor reports whether the app reads the successor already.
func (a *Agent) showsSuccessor(ctx context.Context) bool {
	return a.successor != nil && a.cfg.Publisher.Inspect(ctx, a.publication(a.successor)) == nil
}

// noteAcknowledged writes down who was told.
func (a *Agent) noteAcknowledged() {
	if told := int(a.acknowledged.Load()); told > a.journal.Acknowledged {
		a.journal.Acknowledged, a.unsaved = told, true
	}
}

// announce tells what the app can rely on.
func (a *Agent) announce(news bool) {
	if a.cfg.Announce != nil {
		a.cfg.Announce(a.publication(a.current), news)
		a.noteAcknowledged() // there may be nobody to wait for
	}
}

// sleep waits, but not when there is news.
func (a *Agent) sleep(ctx context.Context, d time.Duration) {
	a.restsUntil.Store(int64(time.Since(a.clock.start) + d))
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-a.wake:
		a.woken()
	}
}

// woken takes up what Wake is for.
func (a *Agent) woken() {
	if a.news.Swap(false) {
		a.forgive()
		a.tendDone = false
		a.inspected = instant{}
	}
}
