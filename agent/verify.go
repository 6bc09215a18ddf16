package agent

import (
	"context"
	"errors"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/settle"
)

// verifyNew proves a new key before any app sees it.
func (a *Agent) verifyNew(ctx context.Context) error {
	h := a.successor
	err := a.ask(ctx, h)
	switch {
	case err == nil:
		a.become(h, accepted, "")
		a.setExpiry(h, h.rec.Expiry) // the server's time is known now
		return nil
	case !key.Is(err, key.Gone):
		return err
	case a.inGrace(h):
		return &settle.NotYet{For: gracePause, Why: "the server does not accept the new key yet: " + err.Error()}
	}
	return a.judgeNew(ctx, h, err)
}

// ask asks whether a key is accepted: with all proofs at first and at last, with one request in
// between.
func (a *Agent) ask(ctx context.Context, h *holding) error {
	if a.expired(h) && !h.limits.cannotExtend {
		// What has expired is extended first. If that fails, asking will tell.
		if _, err := a.revive(ctx, h); err != nil && retryable(err) {
			return err
		}
	}
	if h.said.has(saidDead) || h.mint.Existed() && h.health != doubted || a.inGrace(h) {
		return a.cfg.Issuer.Accepts(ctx, h.key())
	}
	return a.cfg.Issuer.Verify(ctx, h.key())
}

// inGrace reports whether a refused key gets more time: the server may not know it yet.
// A clock that is set does not end it.
func (a *Agent) inGrace(h *holding) bool {
	return h.health == doubted && a.clock.now().mono < h.doubtedSince.mono+grace
}

// judgeNew decides about a new key that the server refuses beyond doubt: it may have expired
// since it was made, may not be known everywhere yet, may never have come to be, or is dead.
func (a *Agent) judgeNew(ctx context.Context, h *holding, refusal error) error {
	revived, err := a.revive(ctx, h)
	switch {
	case err != nil && retryable(err):
		return err
	case revived:
		a.become(h, unproven, "it had expired and was extended")
		return nil
	case a.expired(h) && key.Is(err, key.Gone): // nothing brings it back
		a.drop(h)
		return a.save()
	case h.mint.Existed() && key.Is(err, key.Gone):
		// The server said that it was there already, and neither lists nor knows it.
		a.drop(h)
		a.rest(draftKey, errors.New("the server took the mint for a repetition of one that it does not know"))
		return a.save()
	case h.health != doubted:
		a.become(h, doubted, because(refusal))
		return &settle.NotYet{For: gracePause, Why: "the server does not accept the new key yet: " + refusal.Error()}
	}
	if !h.said.has(saidDead) {
		a.log.Error("the new key is refused, and counts as dead", append(h.attrs(), "error", refusal)...)
		a.diedYoung(h)
		h.said.add(saidDead)
	}
	if key.Is(err, key.Gone) {
		a.become(h, deadGone, because(refusal))
	}
	if wait := a.unplannedIn(a.clock.now()); wait > 0 && err == nil {
		// Another one is not due yet. The server lists this one: it may come round.
		return &settle.NotYet{For: min(wait, time.Minute), Why: "the server lists the new key but refuses it: " + refusal.Error()}
	}
	a.retire(h, 0)
	return a.save()
}

// revive reads a key's expiry, and extends a key that has expired. It returns true if that
// brought it back to life, and an error if the server does not list the key or says nothing.
func (a *Agent) revive(ctx context.Context, h *holding) (bool, error) {
	row, err := a.cfg.Issuer.Find(ctx, h.key())
	if err != nil {
		return false, err
	}
	a.learn(h, row)
	if a.left(h, a.clock.now()) > 0 {
		return false, a.save()
	}
	want := a.serverNow().Add(a.cfg.Times.TTL)
	before := h.rec.Latest
	if err := a.expect(h, want); err != nil {
		return false, err
	}
	extended, err := a.cfg.Issuer.Extend(ctx, h.key(), want)
	if err != nil {
		if class, _ := key.ClassOf(err); nothingDone(class) {
			h.rec.Latest = before
		}
		return false, err
	}
	a.learn(h, extended)
	alive := a.left(h, a.clock.now()) > 0
	if h.limits.cannotExtend = !alive; h.limits.cannotExtend {
		a.log.Warn("the server answered 200 and did not move the expiry of a key that has ended", h.attrs()...)
	}
	return alive, a.save()
}

// retryable reports whether a failure says nothing about the key, so that asking again may.
func retryable(err error) bool {
	switch class, _ := key.ClassOf(err); class {
	case key.Outage, key.Busy, key.Ambiguous, key.Unknown:
		return true
	}
	return false
}

// diedYoung remembers for the pace of replacements how long a key lived.
func (a *Agent) diedYoung(h *holding) {
	if !a.pace.any {
		a.pace.any = true
		a.pace.last = a.clock.now().add(-time.Hour) // the first replacement comes at once
	}
	if lived := a.clock.now().mono - h.born.mono; a.cfg.Times.diesYoung(lived) {
		a.pace.young++
	} else {
		a.pace.young = 0
	}
}
