package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/settle"
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
		a.become(h, unproven, "such keys are listed, and this one is not")
		return nil
	case class == key.Gone || class == key.Unrevocable:
		if !a.warned {
			a.warned = true
			a.log.Warn("the server does not list this key: such keys can neither be extended nor revoked, so each is replaced in time and dies at its expiry",
				append(h.attrs(), "reason", err)...)
		}
		h.limits.cannotExtend = h.limits.notListed || class == key.Unrevocable // the second time it is certain
		h.limits.notListed = true
		return nil
	}
	return err
}

// extend moves the expiry of the current key; its secret, and so what the app reads, stays.
func (a *Agent) extend(ctx context.Context) error {
	h := a.current
	if !h.told.row {
		if err := a.find(ctx); err != nil || !h.told.row {
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
			h.limits.cannotExtend = true
			return nil
		}
		return err
	case class == key.Gone:
		// Look at it more closely. If the server still accepts it and then again does not list it,
		// nothing will extend it.
		a.become(h, unproven, "an extension did not find it")
		h.vanishedAt = a.clock.now()
		if h.vanished++; h.limits.cannotExtend {
			return err
		}
		h.limits.cannotExtend = h.vanished > 1
		return nil
	case err != nil:
		return err
	case got.Expiry.Before(want.Add(-slack)) || got.Expiry.After(want.Add(slack)):
		if h.limits.cannotExtend {
			return errors.New("the server answered 200 and did not move the expiry")
		}
		h.limits.cannotExtend = true
		a.learn(h, got)
		a.log.Warn("the server answered 200 and did not move the expiry: the key is replaced instead", h.attrs()...)
		return nil
	}
	h.limits.cannotExtend, h.vanishedAt, a.renewNow = false, instant{}, false
	h.late, h.vanished = late, 0
	a.learn(h, got)
	a.counters.extensions.Add(1)
	now := a.clock.now()
	args := append(h.attrs(), "next_extension_in", until(now, a.extendAt(h)).Round(time.Second))
	if h.late {
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
	if h.health.dead() {
		return a.checkDead(ctx, h)
	}
	h.told.health = true
	err := a.ask(ctx, h)
	switch {
	case err == nil:
		if h.health != accepted {
			a.become(h, accepted, "")
			a.setExpiry(h, h.rec.Expiry) // the server's time is known now
		}
		if h.adopted && !h.said.has(saidAccepted) {
			h.said.add(saidAccepted)
			a.unsaved = true // a start that fails after this one knows what was sent
			a.log.Info("the server accepts the adopted key", append(h.attrs(), "next_extension_in", max(0, until(a.clock.now(), a.extendAt(h))).Round(time.Second))...)
		}
		if h.adopted && !h.said.has(saidAnnounced) {
			h.said.add(saidAnnounced)
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
		a.become(h, accepted, "")
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
	if a.inGrace(h) {
		return &settle.NotYet{For: gracePause, Why: "the server lists the key but refuses it: " + refusal.Error()}
	}
	revived, err := a.revive(ctx, h)
	now := a.clock.now()
	switch {
	case err != nil && retryable(err):
		return err
	case revived:
		a.log.Info("the key had expired and was extended", h.attrs()...)
		a.become(h, unproven, "it had expired and was extended")
		return nil
	case err == nil && h.health != doubted && a.left(h, now) > 0:
		a.become(h, doubted, because(refusal))
		return &settle.NotYet{For: gracePause, Why: "the server lists the key but refuses it: " + refusal.Error()}
	}
	class, _ := key.ClassOf(err)
	unknown := class == key.Refused || class == key.FreshLogin // nobody could say whether it is listed
	switch {
	case err == nil || unknown:
		a.become(h, deadListed, because(refusal))
	case class == key.Gone:
		a.become(h, deadGone, because(refusal))
	default:
		a.become(h, deadUnlisted, because(refusal))
	}
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
