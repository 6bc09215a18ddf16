package agent

import (
	"slices"
	"time"

	"github.com/balena-injector/injector/key"
)

// holding is a key that the agent holds: its record and what is known in this process only.
type holding struct {
	rec      record
	jitter   time.Duration
	deadline instant // when it expires
	born     instant // when it was minted or adopted here
	verified bool    // the server accepted it, in this process
	adopted  bool    // it comes from an earlier process
	dead     bool    // the server refuses it beyond doubt
	unlisted bool    // a find did not show it
	stuck    bool    // it cannot be extended
	forever  bool    // it cannot be revoked
	sent     bool    // a mint of it may have reached the server
	refused  *instant
	retireAt instant
	missed   *instant // the first find without result, while a mint is settled that way
}

func (h *holding) key() key.Key { return h.rec.key() }

// hold makes a holding of a record.
func (a *Agent) hold(r record) *holding {
	h := &holding{rec: r, jitter: a.jitter(), born: a.clock.now()}
	a.setExpiry(h, r.Expiry)
	return h
}

// setExpiry notes the server's expiry of h, and when that is on our clocks.
func (a *Agent) setExpiry(h *holding, expiry time.Time) {
	h.rec.Expiry = expiry
	h.deadline = a.clock.now().add(expiry.Sub(a.serverNow()) - slack)
}

// left is how much life h has by our clocks; negative when it looks expired.
func (a *Agent) left(h *holding, now instant) time.Duration { return until(now, h.deadline) }

// extendAt is when h is to be extended.
func (a *Agent) extendAt(h *holding) instant {
	return h.deadline.add(-a.cfg.Times.lead(h.jitter))
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

// alive counts the keys that may be live at balena.
func (a *Agent) alive(now instant) int {
	n := 0
	for _, h := range a.all() {
		if !h.dead && a.left(h, now) > -slack {
			n++
		}
	}
	return n
}

// save writes down what is held. Before a mint nothing may be sent if this fails.
func (a *Agent) save() error {
	a.journal.Outputs = a.cfg.Outputs
	a.journal.Keys = a.journal.Keys[:0]
	for _, h := range append(a.all(), a.stranded...) {
		a.journal.Keys = append(a.journal.Keys, h.rec)
	}
	return a.journal.save(a.cfg.State)
}

// drop forgets h: it is gone, or never came to be.
func (a *Agent) drop(h *holding) {
	if a.current == h {
		a.current = nil
	}
	if a.successor == h {
		a.successor = nil
	}
	a.retiring = slices.DeleteFunc(a.retiring, func(x *holding) bool { return x == h })
	a.stranded = slices.DeleteFunc(a.stranded, func(x *holding) bool { return x == h })
	delete(a.steps, step{retire, h.rec.Name})
}

// retire puts h aside, to be revoked after d.
func (a *Agent) retire(h *holding, d time.Duration) {
	h.rec.State = retiring
	h.retireAt = a.clock.now().add(d)
	h.rec.RetireAt = h.retireAt.wall
	if a.current == h {
		a.current = nil
	}
	if a.successor == h {
		a.successor = nil
	}
	if !slices.Contains(a.retiring, h) {
		a.retiring = append(a.retiring, h)
	}
}

// publication is what the app reads of h.
func (a *Agent) publication(h *holding) key.Publication {
	return key.Publication{Generation: a.journal.Generation, Key: h.key(), Kind: a.cfg.Kind}
}
