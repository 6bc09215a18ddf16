package agent

import (
	"time"

	"github.com/balena-injector/injector/key"
)

// missedAfter is the part of the check interval that a list may be late before the agent asks for its key itself.
const missedAfter = 4

// listTime is how long an adopted key waits for the first list before it is asked for itself.
const listTime = time.Minute

// Holds returns the key that the app reads, for who lists the keys of many agents; ok is false while there is none.
func (a *Agent) Holds() (k key.Key, ok bool) {
	s := a.status.Load()
	if s.shown == nil {
		return key.Key{}, false
	}
	return s.shown.Key, true
}

// sighting is what a list has shown.
type sighting struct {
	key   key.Key
	since time.Duration // it was shown at some time since then, on the monotonic clock
}

// Sighted tells the agent that the server has listed k, the key that Holds has returned, with this id and expiry, at some
// time since then. That proves that it exists, and not that it is accepted. It never blocks.
func (a *Agent) Sighted(k key.Key, since time.Time) {
	at := since.Sub(a.clock.start)
	a.sightedAt.Store(int64(at))
	held, ok := a.Holds()
	if a.wantsSight.Load() || !ok || held.ID != k.ID || !held.Expiry.Equal(k.Expiry) {
		a.sighting.Store(&sighting{k, at})
		a.nudge()
	}
}

// Doubt makes the agent ask for its key itself: it is missing from a list, so that its app may be refused, or it is its turn.
// It never blocks.
func (a *Agent) Doubt(missing bool) {
	if missing {
		a.isMissing.Store(true)
	}
	a.inDoubt.Store(true)
	a.nudge()
}

// listed reports whether somebody lists the agent's keys.
func (a *Agent) listed() bool { return a.cfg.Crowd.List != nil }

// noteSighting takes up what a list has shown since the last turn of the loop.
func (a *Agent) noteSighting(now instant) {
	if !a.listed() {
		return
	}
	if a.inDoubt.Swap(false) {
		a.doubting, a.nextCheck = true, now
		a.missing = a.isMissing.Swap(false) || a.missing
	}
	h := a.current
	if seen := a.sighting.Swap(nil); seen != nil && h != nil && h.rec.Name == seen.key.Name {
		a.see(h, *seen)
	}
	if at := time.Duration(a.sightedAt.Load()); at > 0 && h != nil && h.health == accepted && !a.doubting {
		if next := (instant{at, now.wall.Add(at - now.mono)}).add(a.checkPause()); until(a.nextCheck, next) > 0 {
			a.nextCheck = next
		}
	}
	a.wantsSight.Store(h != nil && (h.health == unproven || until(now, a.nextCheck) <= 0))
}

// see learns what a list says of h. It takes nothing for dead, and what the server refused it does not take for alive.
// What was learned since the list was asked for is newer, and an extension without an answer may still take effect.
func (a *Agent) see(h *holding, seen sighting) {
	if h.health != unproven && h.health != accepted {
		return
	}
	if k := seen.key; h.rec.Latest.IsZero() && h.learned < seen.since {
		if h.rec.ID != k.ID || !h.rec.Expiry.Equal(k.Expiry) {
			a.unlabeled, a.unsaved = true, true
		}
		a.learn(h, k)
		h.vanished, h.vanishedAt = 0, instant{}
	}
	if h.health == unproven && h.adopted && a.left(h, a.clock.now()) > 0 {
		a.relyOn(h)
	}
}
