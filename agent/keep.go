package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/balena-injector/injector/key"
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
		h.vanished, h.verified = 1, false // such keys are listed: it may be dead
		return nil
	case class == key.Gone || class == key.Unrevocable:
		if !a.warned {
			a.warned = true
			a.log.Warn("the server does not list this key: such keys can neither be extended nor revoked, so each is replaced in time and dies at its expiry",
				append(h.attrs(), "reason", err)...)
		}
		h.stuck = h.unlisted || class == key.Unrevocable // the second time it is certain
		h.unlisted = true
		return nil
	}
	return err
}

// extend moves the expiry of the current key; its secret, and so what the app reads, stays.
func (a *Agent) extend(ctx context.Context) error {
	h := a.current
	if !h.seen {
		if err := a.find(ctx); err != nil || !h.seen {
			return err
		}
	}
	if _, reliable := a.cfg.Issuer.Now(); !reliable {
		// The machine slept, or its clock was set: any answer tells the server's time anew.
		if err := a.cfg.Issuer.Verify(ctx, h.key()); err != nil && !key.Is(err, key.Gone) {
			if _, e := a.cfg.Issuer.Tend(ctx); e != nil {
				return err
			}
		}
	}
	late := a.cfg.Times.tooOld(a.age(h))
	want := a.serverNow().Add(a.cfg.Times.TTL)
	before := h.rec.Latest
	// A disk that is full must not end a key that could be extended: the journal of a listed key can do without.
	a.unsaved = a.expect(h, want) != nil || a.unsaved
	got, err := a.cfg.Issuer.Extend(ctx, h.key(), want)
	switch class, _ := key.ClassOf(err); {
	case nothingDone(class):
		h.rec.Latest = before
		if class == key.Unrevocable {
			h.stuck = true
			return nil
		}
		return err
	case class == key.Gone:
		// Look at it more closely. If the server still accepts it and then again does not list it,
		// nothing will extend it.
		now := a.clock.now()
		h.verified, h.vanishedAt = false, &now
		if h.vanished++; h.stuck {
			return err
		}
		h.stuck = h.vanished > 1
		return nil
	case err != nil:
		return err
	case got.Expiry.Before(want.Add(-slack)) || got.Expiry.After(want.Add(slack)):
		if h.stuck {
			return errors.New("the server answered 200 and did not move the expiry")
		}
		h.stuck = true
		a.learn(h, got)
		a.log.Warn("the server answered 200 and did not move the expiry: the key is replaced instead", h.attrs()...)
		return nil
	}
	h.stuck, h.vanishedAt, a.renewNow = false, nil, false
	h.overdue, h.vanished = late, 0
	a.learn(h, got)
	a.counters.extensions.Add(1)
	now := a.clock.now()
	args := append(h.attrs(), "next_extension_in", until(now, a.extendAt(h)).Round(time.Second))
	if h.overdue {
		a.log.Warn("extended a key that should have been replaced: no new one could be had", args...)
	} else {
		a.log.Info("extended the key", args...)
	}
	a.unlabeled = true
	a.saveSoon()
	return nil
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
	a.unlabeled = false
	return nil
}

// check asks whether the current key lives.
func (a *Agent) check(ctx context.Context) error {
	h := a.current
	if h.dead {
		return a.checkDead(ctx, h)
	}
	h.asked = true
	err := a.ask(ctx, h)
	switch {
	case err == nil:
		if !h.verified {
			h.verified = true
			a.setExpiry(h, h.rec.Expiry) // the server's time is known now
		}
		if h.adopted && !h.greeted {
			h.greeted, a.unsaved = true, true // a start that fails after this one knows what was sent
			a.log.Info("the server accepts the adopted key", append(h.attrs(), "next_extension_in", max(0, until(a.clock.now(), a.extendAt(h))).Round(time.Second))...)
		}
		h.refused = nil
		if h.adopted && !h.announced {
			h.announced = true
			a.announce(a.untold)
		}
		a.nextCheck = a.clock.now().add(a.checkPause())
		return nil
	case key.Is(err, key.Gone):
		return a.examine(ctx, h, err)
	}
	return err
}

// checkDead asks for a key that was found dead although the server lists it: the server may have
// been wrong.
func (a *Agent) checkDead(ctx context.Context, h *holding) error {
	err := a.cfg.Issuer.Accepts(ctx, h.key())
	a.nextCheck = a.clock.now().add(min(time.Minute, a.checkPause()))
	switch {
	case err == nil:
		h.dead, h.refused = false, nil
		a.log.Info("the server accepts the key again that it refused", h.attrs()...)
		return nil
	case key.Is(err, key.Gone):
		return nil
	}
	return err
}

// checkPause is the check interval with a little less, so that many agents spread out and none
// is late.
func (a *Agent) checkPause() time.Duration {
	return time.Duration(float64(a.cfg.Times.Check) * (0.9 + 0.1*a.cfg.Random()))
}

// examine looks at a key that the server refuses: one that merely expired is extended, one that
// was just made or is still listed gets a minute, any other is dead.
func (a *Agent) examine(ctx context.Context, h *holding, refusal error) error {
	if h.refused != nil && a.inGrace(h) {
		return &pausedError{gracePause, "the server lists the key but refuses it: " + refusal.Error()}
	}
	revived, err := a.revive(ctx, h)
	now := a.clock.now()
	switch {
	case err != nil && retryable(err):
		return err
	case revived:
		a.log.Info("the key had expired and was extended", h.attrs()...)
		h.verified = false
		return nil
	case err == nil && h.refused == nil && a.left(h, now) > 0:
		h.refused, h.verified = &now, false
		return &pausedError{gracePause, "the server lists the key but refuses it: " + refusal.Error()}
	}
	h.dead = true
	class, _ := key.ClassOf(err)
	unknown := class == key.Refused || class == key.FreshLogin // nobody could say whether it is listed
	h.listed, h.gone = err == nil || unknown, class == key.Gone
	a.nextCheck = now.add(min(time.Minute, a.cfg.Times.Check))
	if unknown && a.left(h, now) <= 0 {
		a.log.Error("the key has expired, and this credential cannot extend it", append(h.attrs(), "error", err)...)
		return nil
	}
	a.diedYoung(h)
	a.log.Error("the key is dead: somebody deleted it, or ended its account's access", append(h.attrs(), "error", refusal)...)
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
	if s := a.steps[step{kind: repair}]; s != nil && s.failures > 0 {
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
	if h.forever && !a.expired(h) {
		return &pausedError{time.Minute, "it waits for its expiry"}
	}
	if h.forever {
		a.log.Info("a key that could not be revoked has expired", h.attrs()...)
		a.drop(h)
		return a.save()
	}
	if h.rec.State == minting {
		return a.settleByFind(ctx, h)
	}
	err := a.cfg.Issuer.Revoke(ctx, h.key())
	switch {
	case err == nil:
		if !h.dead {
			a.counters.revocations.Add(1)
		}
		if h.dead {
			a.log.Info("the old key is gone", h.attrs()...)
		} else {
			a.log.Info("revoked a key", h.attrs()...)
		}
		a.drop(h)
		return a.save()
	case key.Is(err, key.Unrevocable):
		h.forever = true
		a.log.Warn("a key cannot be revoked and dies at its expiry", append(h.attrs(), "reason", err)...)
		return nil
	case a.longOver(h):
		a.log.Warn("a key that could not be revoked has long expired", append(h.attrs(), "error", err)...)
		a.drop(h)
		return a.save()
	}
	return err
}
