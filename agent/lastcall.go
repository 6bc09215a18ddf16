package agent

import "time"

// lastCall returns the first of the instants around the expiry of the app's key that comes after then, both on the
// monotonic clock. At each of them what could save the app's token is tried, whatever pause it was given.
func (a *Agent) lastCall(then time.Duration) (at time.Duration, ok bool) {
	if a.current == nil || a.current.health.dead() {
		return 0, false
	}
	now := a.clock.now()
	deadline := now.mono + a.left(a.current, now)
	for _, before := range a.cfg.Times.lastCalls() {
		if at := deadline - before; at > then {
			return at, true
		}
	}
	return 0, false
}

// lastCalling reports whether the app's key is about to expire, or just has, at a time that may be yet to come.
func (a *Agent) lastCalling(now instant) bool {
	if a.current == nil || a.current.health.dead() {
		return false
	}
	calls := a.cfg.Times.lastCalls()
	left := a.left(a.current, now)
	return left <= calls[0] && left >= calls[len(calls)-1]-time.Second
}

// budgetIn returns how long a step that failed must wait for the request budget. While the app's key lives it leaves
// what the last calls around the expiry take, and at these it leaves nothing. Otherwise it leaves the
// reserve at first, and after a while what the shortest way to a good key takes; but asking over
// and over whether the key is healthy always leaves what is needed if it is not.
func (a *Agent) budgetIn(k kind, s *streak, now instant) time.Duration {
	if s.failures == 0 {
		return 0
	}
	wait := a.reserveIn(k, s, now)
	if at, ok := a.lastCall(s.began); ok && k.urgent() {
		wait = min(wait, max(at-now.mono, a.cfg.Budget.untilHas(1)))
	}
	return wait
}

// reserveIn is budgetIn without the last calls.
func (a *Agent) reserveIn(k kind, s *streak, now instant) time.Duration {
	c, rest := a.current, reserveAfter
	switch {
	case k == checkKey && a.calm():
		return a.cfg.Budget.untilHas(aliveReserve + 1) // extending comes first
	case k.urgent() && c != nil && !c.health.dead() && a.left(c, now) > 0:
		return a.cfg.Budget.untilHas(aliveReserve)
	case !k.urgent():
		return a.cfg.Budget.untilHas(reserve + 1)
	case c != nil && !c.health.dead():
		rest = expiredRest // the app waits
	}
	return min(a.cfg.Budget.untilHas(reserve+1), max(s.last+rest-now.mono, a.cfg.Budget.untilHas(shortestWay)))
}
