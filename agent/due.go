package agent

import (
	"time"

	"github.com/balena-injector/injector/settle"
)

// mintIn returns how long it is until a new key must be made, and whether one will be.
func (a *Agent) mintIn(now instant) (time.Duration, bool) {
	c := a.current
	var in time.Duration
	switch {
	case a.successor != nil:
		return 0, false
	case c == nil, c.health.dead():
		in = a.unplannedIn(now)
	case c.health != accepted:
		return 0, false
	case c.limits.cannotExtend:
		in = a.extendIn(c, now)
	case c.late:
		in = 0
	case a.timesOf(c).tooOld(a.age(c) + max(0, a.extendIn(c, now))):
		in = a.extendIn(c, now)
	default:
		return 0, false
	}
	if in <= 0 && a.liveKeys(now) >= 2 {
		in = a.makeRoom(now)
	}
	return in, true
}

// unplannedIn spaces mints that nobody planned: at once, then ever further apart while keys die
// young. While the app has never had a key it is a minute at most.
func (a *Agent) unplannedIn(now instant) time.Duration {
	if !a.pace.any {
		return 0
	}
	gap := a.cfg.Times.replacementGap(a.pace.young)
	if a.current == nil {
		gap = min(gap, time.Minute)
	}
	return until(now, a.pace.last.add(gap))
}

// makeRoom ends an overlap early: a third key is made only when the oldest of two is gone. It returns how long to wait
// before asking again, maxSleep at most.
func (a *Agent) makeRoom(now instant) time.Duration {
	wait := maxSleep
	for _, h := range a.retiring {
		if !a.mayLive(h, now) {
			continue
		}
		if !h.limits.cannotRevoke && until(now, h.retireAt) > 0 && !h.waits {
			a.log.Info("ending the overlap early: another key is needed, and two are the limit", h.attrs()...)
			h.retireAt = now
		}
		wait = min(wait, max(time.Second, a.left(h, now)+2*slack))
	}
	return wait
}

// retireIn returns how long it is until h is to be revoked or, if that is impossible, forgotten.
func (a *Agent) retireIn(h *holding, now instant) time.Duration {
	if h.limits.cannotRevoke {
		return max(0, a.left(h, now)+2*slack)
	}
	return until(now, h.retireAt)
}

// extendIn returns how long it is until c must be extended or replaced.
func (a *Agent) extendIn(c *holding, now instant) time.Duration {
	if a.left(c, now) > a.cfg.Times.TTL+2*slack && !c.limits.cannotExtend {
		return 0 // its TTL is longer than the one configured now, or it never expires: bring the expiry in first
	}
	in := until(now, a.extendAt(c))
	if a.renewNow {
		in = min(in, 0)
	}
	if !c.vanishedAt.isZero() {
		in = max(in, until(now, c.vanishedAt.add(settle.Pause)))
	}
	return in
}

// shouldExtend reports whether c is to be extended rather than replaced. One that is too old is
// extended all the same while no successor can be made.
func (a *Agent) shouldExtend(c *holding, in time.Duration) bool {
	switch {
	case c.limits.cannotExtend:
		return c.rec.ID != 0 && in <= 0 && a.successorBlocked()
	case in > 0 || !a.timesOf(c).tooOld(a.age(c)):
		return true
	}
	return a.successorBlocked() || a.endangered(a.clock.now()) // a successor that waits for its turn may come too late
}

// successorBlocked reports whether a successor cannot be made now: a step towards it has failed, or two keys are live
// already.
func (a *Agent) successorBlocked() bool {
	for _, k := range []kind{draftKey, settleMint, verifyKey, publishKey} {
		if s := a.steps[step{kind: k}]; s != nil && s.failures > 0 {
			return true
		}
	}
	return a.successor == nil && a.liveKeys(a.clock.now()) >= 2
}
