package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/balena-injector/injector/key"
)

const (
	// shutdownTry is how long one try of a request may take while stopping, so that a lost
	// packet does not cost the whole budget.
	shutdownTry = 2500 * time.Millisecond
	// shutdownPause lies between two tries.
	shutdownPause = 200 * time.Millisecond
)

// handOver leaves everything to the next start.
func (a *Agent) handOver() error {
	a.publishStatus("handing over")
	err := a.save()
	for _, h := range a.all() {
		a.log.Info("handing over a key to the next start", h.attrs()...)
	}
	return err
}

// shutdown removes the outputs and revokes every key, within the budget. It returns *LeftError
// if a key that could have been revoked was not.
func (a *Agent) shutdown() error {
	ctx, cancel := context.WithTimeout(a.kill, a.shutdownBudget())
	defer cancel()
	a.publishStatus("stopping")
	if a.cfg.ShutdownDelay > 0 && len(a.all()) > 0 {
		a.log.Info("stopping: the key lives on for a moment", "delay", a.cfg.ShutdownDelay)
		pause(ctx, a.cfg.ShutdownDelay)
	}
	a.cfg.Budget.Open()
	removal := a.cfg.Publisher.Remove()
	if removal != nil {
		a.log.Error("an output could not be removed", "error", removal)
	}
	a.revokeAll(ctx)
	left := a.takeStock()
	return errors.Join(removal, a.save(), left)
}

// shutdownBudget is what is left of the time for an orderly end: a mint in flight may have been
// waited for already.
func (a *Agent) shutdownBudget() time.Duration {
	if at := a.stopped.Load(); at > 0 {
		return a.cfg.ShutdownTimeout - (a.clock.now().mono - time.Duration(at))
	}
	return a.cfg.ShutdownTimeout
}

// revokeAll revokes all keys side by side.
func (a *Agent) revokeAll(ctx context.Context) {
	var group sync.WaitGroup
	for _, h := range a.all() {
		group.Go(func() { a.end(ctx, h) })
	}
	group.Wait()
}

// end revokes one key; it touches nothing but h.
func (a *Agent) end(ctx context.Context, h *holding) {
	for first := true; ctx.Err() == nil; first = false {
		err := a.tryEnd(ctx, h)
		class, _ := key.ClassOf(err)
		switch {
		case err == nil:
			h.dead = true
			a.log.Info("revoked a key", h.attrs()...)
			return
		case class == key.Unrevocable:
			h.forever = true
			return
		case class == key.Refused || class == key.FreshLogin || class == key.Wrong:
			a.log.Error("a key could not be revoked", append(h.attrs(), "error", err)...)
			return
		case first:
			a.log.Warn("trying again to revoke a key", append(h.attrs(), "error", err)...)
		}
		wait := shutdownPause // there is no time to wait for as long as a server may ask
		if paused, ok := errors.AsType[*pausedError](err); ok {
			wait = paused.wait
		}
		pause(ctx, wait)
	}
}

func (a *Agent) tryEnd(ctx context.Context, h *holding) error {
	ctx, cancel := context.WithTimeout(ctx, shutdownTry)
	defer cancel()
	if h.rec.State == minting {
		if never, err := a.settleEnd(ctx, h); never || err != nil {
			return err
		}
	}
	return a.cfg.Issuer.Revoke(ctx, h.key())
}

// settleEnd settles a mint whose answer is lost, so that it can be revoked, or finds that it was
// never made. One empty find would prove nothing, so the mint is sent again; where the secret is
// not known or not heeded, or the credential cannot mint any more, it takes two finds.
func (a *Agent) settleEnd(ctx context.Context, h *holding) (never bool, err error) {
	if !h.sent {
		return true, nil
	}
	if h.rec.Secret != "" && !a.ignores {
		_, _, err := a.cfg.Issuer.Mint(ctx, h.key())
		class, _ := key.ClassOf(err)
		if err == nil {
			h.rec.State = minted
		}
		if class != key.FreshLogin && class != key.Refused {
			return false, err
		}
	}
	return a.neverMade(ctx, h)
}

// takeStock says what became of the keys. What is gone leaves the journal; what could not be
// revoked stays, the next start revokes or adopts it.
func (a *Agent) takeStock() error {
	var left []KeyStatus
	for _, h := range a.all() {
		switch {
		case h.dead:
			a.counters.revocations.Add(1)
			a.drop(h)
		case h.forever:
			a.log.Warn("a key cannot be revoked; it dies at its expiry, unless the next start adopts it", h.attrs()...)
		default:
			left = append(left, h.status())
			if h.rec.State != minting {
				a.retire(h, 0)
			}
		}
	}
	a.counters.unrevoked.Add(int64(len(left)))
	if len(left) == 0 {
		a.log.Info("stopped; no key was left that could be revoked")
		return nil
	}
	return &LeftError{left}
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
