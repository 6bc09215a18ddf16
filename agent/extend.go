package agent

import (
	"context"
	"errors"
	"time"

	"github.com/balena-injector/injector/key"
)

// extend moves the expiry of the current key; its secret, and so what the app reads, stays.
func (a *Agent) extend(ctx context.Context) error {
	h := a.current
	if !h.told.row && !(a.cfg.Crowd.Together && h.rec.ID != 0) {
		if err := a.find(ctx); err != nil || !h.told.row {
			return err
		}
	}
	if err := a.learnTime(ctx, h); err != nil {
		return err
	}
	late := a.timesOf(h).tooOld(a.age(h))
	want := a.serverNow().Add(a.cfg.Times.TTL)
	before := h.rec.Latest
	// A disk that is full must not end a key that could be extended: the journal of a listed key can do without.
	a.unsaved = a.expect(h, want) != nil || a.unsaved
	got, err := a.cfg.Issuer.Extend(ctx, h.key(), want)
	switch class, _ := key.ClassOf(err); {
	case class == key.Unrevocable:
		h.rec.Latest = before
		h.limits.cannotExtend = true
		return nil
	case nothingDone(class):
		h.rec.Latest = before
		return err
	case class == key.Gone:
		return a.notFound(h, err)
	case err != nil:
		return err
	case got.Expiry.Before(want.Add(-slack)) || got.Expiry.After(want.Add(slack)):
		return a.notMoved(h, got)
	}
	a.extended(h, got, late)
	return nil
}

// learnTime makes sure that the server's time is known: the machine may have slept, or its clock was set. Any answer
// tells it.
func (a *Agent) learnTime(ctx context.Context, h *holding) error {
	if _, reliable := a.cfg.Issuer.Now(); reliable {
		return nil
	}
	if a.cfg.Crowd.Together { // one look at the session tells all agents
		_, err := a.cfg.Issuer.Tend(ctx)
		if _, reliable := a.cfg.Issuer.Now(); err == nil && reliable {
			return nil
		}
	}
	err := a.cfg.Issuer.Verify(ctx, h.key())
	if err == nil || key.Is(err, key.Gone) {
		return nil
	}
	if _, e := a.cfg.Issuer.Tend(ctx); e != nil {
		return err
	}
	return nil
}

// notFound notes that an extension did not find h, which is looked at more closely then. If the server still accepts it
// and then again does not list it, nothing will extend it.
func (a *Agent) notFound(h *holding, err error) error {
	a.unprove(h, "an extension did not find it")
	h.vanishedAt = a.clock.now()
	if h.vanished++; h.limits.cannotExtend {
		return err
	}
	h.limits.cannotExtend = h.vanished > 1
	return nil
}

// notMoved notes that an extension was answered by 200 and left the expiry where it was.
func (a *Agent) notMoved(h *holding, got key.Key) error {
	if h.limits.cannotExtend {
		return errors.New("the server answered 200 and did not move the expiry")
	}
	h.limits.cannotExtend = true
	a.learn(h, got)
	a.log.Warn("the server answered 200 and did not move the expiry: the key is replaced instead", h.attrs()...)
	return nil
}

// extended notes that h expires later now. late reports whether it should have been replaced instead.
func (a *Agent) extended(h *holding, got key.Key, late bool) {
	h.limits.cannotExtend, h.vanishedAt, a.renewNow = false, instant{}, false
	h.late, h.vanished = late, 0
	if a.listed() { // and the server has just shown that it exists
		a.nextCheck = a.clock.now().add(a.checkPause())
	}
	a.learn(h, got)
	a.counters.extensions.Add(1)
	now := a.clock.now()
	args := append(h.attrs(), "next_extension_in", until(now, a.extendAt(h)).Round(time.Second))
	if late {
		a.log.Warn("extended a key that should have been replaced: a new one could not be made", args...)
	} else {
		a.log.Info("extended the key", args...)
	}
	a.unlabeled = true
	a.saveSoon()
}
