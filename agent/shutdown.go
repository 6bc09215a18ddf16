package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/settle"
)

const (
	// shutdownTry is how long one request may take while stopping, so that a lost packet does not
	// cost the whole budget.
	shutdownTry = 2500 * time.Millisecond
	// shutdownPause lies between the first two tries; it doubles up to maxShutdownPause.
	shutdownPause    = 200 * time.Millisecond
	maxShutdownPause = 5 * time.Second
	// lastWrite is how long the journal's last write may take when revoking has used up the time.
	lastWrite = 500 * time.Millisecond
)

// handOver leaves everything to the next start.
func (a *Agent) handOver() error {
	a.publishStatus("handing over")
	ctx, cancel := context.WithTimeout(a.kill, a.shutdownBudget())
	defer cancel()
	a.diskWait = ctx
	err := a.save()
	for _, h := range a.all() {
		a.log.Info("handing over a key to the next start", h.attrs()...)
	}
	return err
}

// shutdown removes the outputs and revokes every key, within the budget. It returns *LeftError
// if a key that could have been revoked was not.
func (a *Agent) shutdown(why string) error {
	a.stopping(why)
	if a.cfg.Retract != nil {
		a.cfg.Retract()
	}
	if err := a.removeOutputs(); err != nil {
		a.log.Error("an output could not be removed", "error", err)
		return errors.Join(err, a.shutdownBut())
	}
	return a.shutdownBut()
}

// removeOutputs removes them before anything is revoked, unless that takes so long that nothing would be.
func (a *Agent) removeOutputs() error {
	ctx, cancel := context.WithTimeoutCause(a.kill, a.shutdownBudget()/3,
		errors.New("removing the outputs takes too long: their disk is slow"))
	defer cancel()
	return beside(ctx, func() error { return a.cfg.Publisher.Remove(ctx) })
}

// stopping lets the key live on for the time that was asked for, counted from the stop.
func (a *Agent) stopping(why string) {
	a.publishStatus("stopping")
	if n := len(a.all()); n > 0 {
		a.log.Info("stopping: removing the outputs and revoking", "because", why, "keys", n,
			"at_most", max(0, a.shutdownBudget()).Round(100*time.Millisecond))
	} else {
		a.log.Info("stopping: there is no key to revoke", "because", why)
	}
	delay := min(a.cfg.ShutdownDelay-a.sinceStop(), a.shutdownBudget()-shutdownTry)
	if delay > 0 && len(a.all()) > 0 {
		a.log.Info("stopping: the key lives on for a moment", "delay", delay.Round(100*time.Millisecond))
		pause(a.kill, delay)
	}
}

// shutdownBut revokes every key but these.
func (a *Agent) shutdownBut(kept ...*holding) error {
	ctx, cancel := context.WithTimeout(a.kill, a.shutdownBudget())
	defer cancel()
	a.diskWait = ctx
	ending := slices.DeleteFunc(a.all(), func(h *holding) bool { return slices.Contains(kept, h) })
	a.cfg.Budget.end(endGrant * len(ending))
	tries := key.WithTryTimeout(ctx, shutdownTry)
	var group sync.WaitGroup
	for _, h := range ending {
		group.Go(func() { a.endKey(tries, h) })
	}
	group.Wait()
	left := a.takeStock(kept)
	last, done := context.WithTimeout(a.kill, max(a.shutdownBudget(), lastWrite))
	defer done()
	a.diskWait = last
	if a.forgiven(left) {
		a.cfg.Budget.forget()
	}
	err := a.save()
	if errors.Is(err, errSlowDisk) || errors.Is(err, errCutShort) { // the next start finds out what the journal does not say
		a.log.Warn("the journal may name keys that are revoked", "error", err)
		err = nil
	}
	return errors.Join(err, left)
}

// shutdownBudget is what is left of the time for an orderly end: a mint in flight may have been
// waited for already.
func (a *Agent) shutdownBudget() time.Duration {
	return a.cfg.ShutdownTimeout - a.sinceStop()
}

// forgiven reports whether the next start begins with a budget of its own: somebody asked for this end, or the command
// did its work, and nothing fails. What fails goes on over the starts.
func (a *Agent) forgiven(left error) bool {
	return left == nil && !a.journal.Mints.Again && !a.failing()
}

// failing reports whether a step failed at its last try.
func (a *Agent) failing() bool {
	for _, s := range a.steps {
		if s.failures > 0 {
			return true
		}
	}
	return false
}

func (a *Agent) sinceStop() time.Duration {
	if at := a.stopped.Load(); at > 0 {
		return a.clock.now().mono - time.Duration(at)
	}
	return 0
}

// endKey revokes one key; it touches nothing but h.
func (a *Agent) endKey(ctx context.Context, h *holding) {
	rest := shutdownPause
	for first := true; ctx.Err() == nil; first = false {
		err := a.tryEnd(ctx, h)
		class, wait := key.ClassOf(err)
		switch {
		case err == nil:
			a.become(h, ended, "")
			a.log.Info("revoked a key", h.attrs()...)
			return
		case class == key.Unrevocable:
			h.limits.cannotRevoke = true
			return
		case class == key.Refused || class == key.FreshLogin:
			h.failure = err
			a.log.Error("a key could not be revoked", append(h.attrs(), "error", err)...)
			return
		case first:
			a.log.Warn("trying again to revoke a key", append(h.attrs(), "error", err)...)
		}
		h.failure = err
		if deadline, ok := ctx.Deadline(); !ok || wait > time.Until(deadline) {
			wait = 0 // there is no time to wait for as long as the server asks
		}
		pause(ctx, max(rest, wait))
		rest = min(2*rest, maxShutdownPause)
	}
}

func (a *Agent) tryEnd(ctx context.Context, h *holding) error {
	if h.rec.State == minting {
		if never, err := a.settleEnd(ctx, h); never || err != nil {
			return err
		}
	}
	if err := a.cfg.Issuer.Revoke(ctx, h.key()); err != nil {
		return err
	}
	// A mint that was cut off a moment ago could still take effect: the name is free again.
	if wait := h.mint.Doubt(); wait > 0 {
		return &settle.NotYet{For: wait, Why: "looking once more whether a mint that was cut off took effect"}
	}
	return nil
}

// settleEnd settles a mint whose answer is lost, so that it can be revoked, or finds that it was
// never made. One empty find would prove nothing, so the mint is sent again; where the secret is
// not known or not heeded, or the credential cannot mint any more, it takes two finds.
func (a *Agent) settleEnd(ctx context.Context, h *holding) (never bool, err error) {
	if !h.mint.Sent() {
		return true, nil
	}
	mine := h.rec.Kind == a.cfg.Kind && h.rec.Target == a.cfg.Target
	if !h.rec.Secret.IsZero() && !a.ignores && mine {
		_, err := h.mint.Send(ctx, a.cfg.Issuer, h.key())
		class, _ := key.ClassOf(err)
		if err == nil {
			h.rec.State, h.rec.Minted = minted, a.serverNow()
		}
		if class != key.FreshLogin && class != key.Refused && class != key.Wrong {
			return false, err
		}
	}
	return a.neverMade(ctx, h)
}

// takeStock says what became of the keys. What is gone leaves the journal; what could not be
// revoked stays, the next start revokes or adopts it.
func (a *Agent) takeStock(kept []*holding) error {
	var left LeftError
	for _, h := range a.all() {
		switch {
		case slices.Contains(kept, h):
		case h.health == ended:
			a.counters.revocations.Add(1)
			a.drop(h)
		case h.rec.State == minting && !h.mint.Sent():
			a.drop(h)
		case a.longOver(h):
			a.log.Warn("a key that could not be revoked has expired", append(h.attrs(), "error", h.failure)...)
			a.drop(h)
		case h.limits.cannotRevoke:
			h.rec.Forever = true
			a.log.Warn("a key cannot be revoked; it dies at its expiry, unless the next start adopts it", h.attrs()...)
		default:
			left.Keys = append(left.Keys, h.status())
			left.Cause = h.failure
			if !h.rec.Left {
				h.rec.Left = true
				a.counters.unrevoked.Add(1)
			}
			if h.rec.State != minting && !slices.Contains(a.undecided, h) {
				a.retire(h, 0)
			}
		}
	}
	if len(left.Keys) > 0 {
		return &left
	}
	if len(kept) == 0 {
		a.log.Info("stopped; nothing is left that could be revoked", "took", a.sinceStop().Round(time.Millisecond))
	}
	return nil
}

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
