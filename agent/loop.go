package agent

import (
	"context"
	"time"
)

// loop runs the steps that are due until ctx is done, or, if once, until there is something to
// leave to Run or a failure that trying again will not mend.
func (a *Agent) loop(ctx context.Context, once bool) error {
	for {
		now := a.clock.now()
		a.beat.Store(int64(now.mono))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		a.follow()
		a.inspect(ctx, now)
		a.renewNow = a.renewAsked.Swap(false) || a.renewNow
		if a.tryAsked.Swap(false) {
			a.tendDone, a.nextTend, a.credentialNews = false, now, true
		}
		a.retime()
		a.noteExpiry(now)
		a.noteLongLife(now)
		a.forgetStranded()
		a.publishStatus("running")
		if once && a.settled() || a.draining && len(a.all()) == 0 {
			return nil
		}
		t, wait := a.next(now)
		if wait > 0 && now.mono != a.inspected.mono && a.look(ctx, now) {
			continue // what is wrong with the outputs is mended before the sleep
		}
		if wait > 0 {
			a.sleep(ctx, a.untilExpiry(now, wait))
			continue
		}
		err := a.try(ctx, t, now)
		if once && a.hopeless(t.step, err) {
			return err
		}
		a.note(ctx, t.step, now, err)
	}
}

// try runs a step. One that hangs must not keep another from being tried before the app's key expires.
func (a *Agent) try(ctx context.Context, t task, now instant) error {
	a.turn = 0
	if at, ok := a.lastCall(now.mono); ok {
		a.turn = at - now.mono
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.turn)
		defer cancel()
	}
	return t.run(ctx)
}

// untilExpiry shortens a sleep that goes beyond the expiry of the app's key.
func (a *Agent) untilExpiry(now instant, wait time.Duration) time.Duration {
	wait = min(wait, maxSleep)
	if a.current != nil {
		if left := a.left(a.current, now); left > 0 {
			wait = min(wait, left+time.Millisecond)
		}
	}
	return wait
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
	if a.inspected.isZero() || now.mono-a.inspected.mono >= inspectPause {
		a.look(ctx, now)
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
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-a.wake:
		a.forgive()
		a.tendDone = false
		a.inspected = instant{}
	}
}
