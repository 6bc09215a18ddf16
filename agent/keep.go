package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/settle"
	"github.com/balena-injector/injector/turn"
)

// find reads the current key's id, which is needed to extend and to revoke it. Whatever comes of
// it, it is asked for again only when it is needed.
func (a *Agent) find(ctx context.Context) error {
	h := a.current
	row, err := a.cfg.Issuer.Find(ctx, h.key())
	switch class, _ := key.ClassOf(err); {
	case err == nil:
		a.learn(h, row)
		a.unlabeled = true // an output may show the id
		return a.save()
	case class == key.Gone && h.rec.Kind == key.User && h.vanished == 0:
		h.vanished = 1
		a.unprove(h, "such keys are listed, and this one is not")
		return nil
	case class == key.Gone || class == key.Unrevocable:
		if !a.warned {
			a.warned = true
			a.log.Warn(
				"the server does not list this key: such keys can neither be extended nor revoked, so each is replaced in time "+
					"and dies at its expiry",
				append(h.attrs(), "reason", err)...)
		}
		h.limits.cannotExtend = h.limits.notListed || class == key.Unrevocable // the second time it is certain
		h.limits.notListed = true
		return nil
	}
	return err
}

// label brings everything up to date that shows more than the secret: outputs with the expiry or
// the id in them, and what lies beside the outputs.
func (a *Agent) label(ctx context.Context) error {
	p := a.publication(a.current)
	if err := a.cfg.Publisher.Publish(ctx, p); err != nil {
		return err
	}
	if err := a.cfg.Publisher.Describe(ctx, p); err != nil {
		return err
	}
	a.unlabeled, a.inspected = false, instant{}
	return nil
}

// repair writes the outputs again that somebody changed or removed, or whose template changed.
func (a *Agent) repair(ctx context.Context) error {
	now, p := a.clock.now(), a.publication(a.current)
	often := until(a.repaired, now) < time.Minute && a.repairPause > 0
	a.repairPause = max(time.Second, min(2*a.repairPause, 30*time.Second))
	if !often {
		a.repairPause = time.Second
	}
	a.repaired = now
	why := a.damage
	if s := a.steps[step{kind: repairOutputs}]; s != nil && s.failures > 0 {
		why = nil // it is what kept them from being written, and is said
	}
	if err := a.cfg.Publisher.Publish(ctx, p); err != nil {
		return err
	}
	if a.damage, a.inspected = a.cfg.Publisher.Inspect(ctx, p), a.clock.now(); a.damage != nil {
		return fmt.Errorf("%w, right after it was written", a.damage)
	}
	a.unlabeled = true
	if !often && why != nil {
		a.log.Warn("the outputs were written again: "+why.Error(), "generation", a.journal.Generation)
	}
	return nil
}

// tend looks after the session, so that extending and revoking work when they must.
func (a *Agent) tend(ctx context.Context) error {
	next, err := a.cfg.Issuer.Tend(ctx)
	if err != nil {
		return err
	}
	a.unsaved = a.unsaved || a.credentialNews // marks are made with what worked last
	a.tendDone, a.credentialNews = next == 0, false
	a.nextTend = a.clock.now().add(next)
	return nil
}

// revoke ends an old key.
func (a *Agent) revoke(ctx context.Context, h *holding) error {
	if h.limits.cannotRevoke && !a.expired(h) {
		return &settle.NotYet{For: time.Minute, Why: "it waits for its expiry"}
	}
	if h.limits.cannotRevoke {
		a.log.Info("a key that could not be revoked has expired", h.attrs()...)
		a.drop(h)
		return a.save()
	}
	if h.rec.State == minting {
		return a.settleByFind(ctx, h)
	}
	err := a.cfg.Issuer.Revoke(ctx, h.key())
	switch {
	case errors.Is(err, turn.ErrAlone):
		return err
	case err == nil:
		if !h.health.dead() {
			a.counters.revocations.Add(1)
		}
		if h.health.dead() {
			a.log.Info("the old key is gone", h.attrs()...)
		} else {
			a.log.Info("revoked a key", h.attrs()...)
		}
		a.drop(h)
		return a.save()
	case key.Is(err, key.Unrevocable):
		h.limits.cannotRevoke = true
		a.log.Warn("a key cannot be revoked and dies at its expiry", append(h.attrs(), "reason", err)...)
		return nil
	case a.longOver(h):
		a.log.Warn("a key that could not be revoked has long expired", append(h.attrs(), "error", err)...)
		a.drop(h)
		return a.save()
	}
	return err
}
