package agent

import (
	"slices"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/settle"
)

// holding is a key that the agent holds: its record and what is known in this process only.
type holding struct {
	rec      record
	jitter   time.Duration
	deadline instant       // when it expires
	learned  time.Duration // when the server told its expiry last, on the monotonic clock
	born     instant       // when it was minted or adopted here
	retireAt instant       // when it is to be revoked, if it is retiring
	adopted  bool          // it comes from an earlier process
	waits    bool          // it is revoked only once a new key is published
	late     bool          // it should have been replaced, and was extended instead
	alone    alone         // the steps that could not be part of a batch, and need requests of their own

	health       health  // changed by become alone
	doubtedSince instant // since the server accepted it last; zero: it does, or was not asked
	mint         settle.Mint
	limits       limits
	told         answers
	said         notices

	vanished   int     // extensions in a row that did not find it
	vanishedAt instant // when the last of them was; zero: none
	failure    error   // why it could not be revoked at the end
}

func (h *holding) key() key.Key {
	k := h.rec.key()
	k.Seen = h.told.row
	return k
}

// learn notes what the server has told of h's row.
func (a *Agent) learn(h *holding, k key.Key) {
	h.rec.ID, h.told.row = k.ID, k.Seen
	a.learnExpiry(h, k.Expiry)
}

// expect writes down that h may last until expiry, before the server is asked for that: whatever comes of the request,
// it may take effect. It must succeed before the request is sent.
func (a *Agent) expect(h *holding, expiry time.Time) error {
	if expiry.After(h.rec.latest()) {
		h.rec.Latest = expiry
	}
	return a.save()
}

// nothingDone reports whether a failure of that class promises that an extension took no effect: it was not sent, or
// refused.
func nothingDone(class key.Class) bool {
	return class == key.Refused || class == key.FreshLogin || class == key.Busy || class == key.Wrong || class == key.Unrevocable
}

// hold makes a holding of a record.
func (a *Agent) hold(r record) *holding {
	h := &holding{rec: r, jitter: a.jitter(), born: a.clock.now()}
	a.setExpiry(h, r.Expiry)
	return h
}

// farthest caps what an expiry can be away, so that no sum of times overflows.
const farthest = 10 * 365 * 24 * time.Hour

// learnExpiry notes an expiry that the server has told, which settles any that was asked for.
func (a *Agent) learnExpiry(h *holding, expiry time.Time) {
	h.rec.Latest = time.Time{}
	h.told.expiry, h.learned = true, a.clock.now().mono
	a.setExpiry(h, expiry)
}

// setExpiry notes an expiry of h, by the server's clock, and when that is on ours.
func (a *Agent) setExpiry(h *holding, expiry time.Time) {
	h.rec.Expiry = expiry
	h.deadline = a.clock.now().add(max(-farthest, min(farthest, expiry.Sub(a.serverNow())-slack)))
}

// retime computes all deadlines anew when the server's time becomes known: before, they hang on
// the local clock, which may be wrong.
func (a *Agent) retime() {
	_, reliable := a.cfg.Issuer.Now()
	if reliable && !a.timed {
		for _, h := range append(a.all(), a.stranded...) {
			a.setExpiry(h, h.rec.Expiry)
		}
	}
	a.timed = reliable
}

// expired reports whether h is over by the server's clock and the last expiry that we know of. Our
// own clocks do not say so.
func (a *Agent) expired(h *holding) bool {
	now, reliable := a.cfg.Issuer.Now()
	return reliable && now.After(h.rec.latest().Add(slack))
}

// longOver reports whether h is over beyond doubt: the expiry was told by the server in this process,
// or it is of a key that nothing can extend. A journal may have missed the last extensions.
func (a *Agent) longOver(h *holding) bool {
	return a.expired(h) && (h.told.expiry || h.limits.cannotRevoke)
}

// mayLive reports whether h may be live at balena, as far as our clocks know.
func (a *Agent) mayLive(h *holding, now instant) bool {
	if h.health == ended || h.health == deadUnlistable || h.health == deadGone {
		return false
	}
	// By the clock that gives it more time: one that was set ahead must not make room for a third key.
	left := max(h.deadline.mono-now.mono, h.deadline.wall.Sub(now.wall))
	return left+h.rec.latest().Sub(h.rec.Expiry) > -slack
}

// left is how much life h has by our clocks; negative when it looks expired.
func (a *Agent) left(h *holding, now instant) time.Duration { return until(now, h.deadline) }

// extendAt is when h is to be extended.
func (a *Agent) extendAt(h *holding) instant {
	at := h.deadline.add(-a.cfg.Times.lead(h.jitter))
	if a.cfg.Crowd.Together {
		return a.aligned(at)
	}
	return at
}

// age is how long ago h was minted, by the server's clock.
func (a *Agent) age(h *holding) time.Duration { return a.serverNow().Sub(h.rec.Created) }

// all returns every holding of this account and configuration.
func (a *Agent) all() []*holding {
	var list []*holding
	for _, h := range []*holding{a.current, a.successor} {
		if h != nil {
			list = append(list, h)
		}
	}
	return append(append(list, a.retiring...), a.undecided...)
}

// liveKeys counts the keys that may be live at balena.
func (a *Agent) liveKeys(now instant) int {
	n := 0
	for _, h := range a.all() {
		if a.mayLive(h, now) {
			n++
		}
	}
	return n
}

// save writes down what is held. Before a mint nothing may be sent if this fails.
func (a *Agent) save() error {
	a.noteAcknowledged()
	a.journal.Outputs = a.cfg.Outputs
	a.journal.Keys = nil // an earlier one may still be on its way to the disk
	for _, h := range append(a.all(), a.stranded...) {
		a.journal.Keys = append(a.journal.Keys, h.rec)
	}
	a.journal.Budget = a.cfg.Budget.carry(a.clock.now().wall)
	if now, reliable := a.cfg.Issuer.Now(); reliable {
		a.journal.Ahead = a.clock.now().wall.Sub(now).Round(time.Second)
	}
	a.journal.Unrevoked = a.counters.unrevoked.Load()
	err := a.write(a.journal)
	a.unsaved = a.unsaved && err != nil
	return err
}

// saveSoon is save for what the journal can do without for a while: an expiry that moved. A disk
// that is full must not end a key that could be extended.
func (a *Agent) saveSoon() { a.unsaved = a.save() != nil }

// drop forgets h: it is gone, or never came to be.
func (a *Agent) drop(h *holding) {
	if a.current == h {
		a.current = nil
	}
	if a.successor == h {
		a.successor, a.inspected = nil, instant{} // the app may read it already
	}
	a.retiring = slices.DeleteFunc(a.retiring, func(x *holding) bool { return x == h })
	a.stranded = slices.DeleteFunc(a.stranded, func(x *holding) bool { return x == h })
	a.undecided = slices.DeleteFunc(a.undecided, func(x *holding) bool { return x == h })
	delete(a.steps, step{revokeOld, h.rec.Name})
}

// retire puts h aside, to be revoked after d.
func (a *Agent) retire(h *holding, d time.Duration) {
	if h.health == deadGone {
		a.drop(h) // there is nothing to revoke
		return
	}
	h.rec.State = retiring
	h.retireAt = a.clock.now().add(d)
	h.rec.RetireAt = h.retireAt.wall
	if a.current == h {
		a.current = nil
	}
	if a.successor == h {
		a.successor, a.inspected = nil, instant{} // the app may read it already
	}
	a.undecided = slices.DeleteFunc(a.undecided, func(x *holding) bool { return x == h })
	if !slices.Contains(a.retiring, h) {
		a.retiring = append(a.retiring, h)
	}
}

// publication is what the app reads of h.
func (a *Agent) publication(h *holding) key.Publication {
	return key.Publication{Generation: a.journal.Generation, Key: h.key(), Left: a.left(h, a.clock.now())}
}
