package agent

import (
	"context"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/settle"
)

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
		a.doubting, a.missing = false, false
		a.relyOn(h)
		return nil
	case key.Is(err, key.Gone):
		return a.examine(ctx, h, err)
	}
	return err
}

// relyOn notes that h is alive, and says so where it was adopted and nobody has.
func (a *Agent) relyOn(h *holding) {
	if h.health != accepted {
		a.become(h, accepted, "")
		a.setExpiry(h, h.rec.Expiry) // the server's time is known now
	}
	if h.adopted && !h.said.has(saidAccepted) {
		h.said.add(saidAccepted)
		a.unsaved = true // a start that fails after this one knows what was sent
		a.log.Info("the server accepts the adopted key",
			append(h.attrs(), "next_extension_in", max(0, until(a.clock.now(), a.extendAt(h))).Round(time.Second))...)
	}
	if h.adopted && !h.said.has(saidAnnounced) {
		h.said.add(saidAnnounced)
		a.announce(a.untold)
	}
	a.nextCheck = a.clock.now().add(a.checkPause())
}

// checkDead asks for a key that was found dead although the server lists it: the server may have
// been wrong.
func (a *Agent) checkDead(ctx context.Context, h *holding) error {
	err := a.cfg.Issuer.Accepts(ctx, h.key())
	a.nextCheck = a.clock.now().add(min(time.Minute, a.checkPause()))
	switch {
	case err == nil:
		if h.adopted && !h.said.has(saidAnnounced) {
			a.become(h, unproven, "the server accepts it again") // nobody relies on it yet: it is verified, and announced then
		} else {
			a.become(h, accepted, "")
		}
		a.log.Info("the server accepts the key again that it refused", h.attrs()...)
		return nil
	case key.Is(err, key.Gone):
		return nil
	}
	return err
}

// checkPause is the check interval with a little less, so that many agents spread out and none is late. Where a list shows
// the key in each interval, it is how long that may fail to come.
func (a *Agent) checkPause() time.Duration {
	pause := time.Duration(float64(a.cfg.Times.Check) * (0.9 + 0.1*a.cfg.Random()))
	if at := time.Duration(a.sightedAt.Load()); at > 0 && a.clock.now().mono-at < 2*a.cfg.Times.Check {
		pause += a.cfg.Times.Check / missedAfter // a list shows it in each interval, and may be late
	}
	return pause
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
		a.become(h, deadUnsettled, because(refusal))
	case class == key.Gone:
		a.become(h, deadGone, because(refusal))
	default:
		a.become(h, deadUnlistable, because(refusal))
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
