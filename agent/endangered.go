package agent

import "time"

// lifeLeft is how much life the app's key has left; 0 if there is none that lives.
func (a *Agent) lifeLeft(now instant) time.Duration {
	if a.current == nil || a.current.health.dead() {
		return 0
	}
	return max(0, a.left(a.current, now))
}

// waning reports whether the app's key lives, and will not for long.
func (a *Agent) waning(now instant) bool {
	left := a.lifeLeft(now)
	return left > 0 && left <= a.cfg.Times.dangerous()
}

// wanesIn returns how long it is until the app's key will not live for long; 0 if that is so already, or none lives.
func (a *Agent) wanesIn(now instant) time.Duration {
	return max(0, a.lifeLeft(now)-a.cfg.Times.dangerous())
}

// endangered reports whether the app's key will not live for long and can be extended: to do that comes before all else,
// also before a successor that waits for its turn.
func (a *Agent) endangered(now instant) bool {
	return a.waning(now) && !a.current.limits.cannotExtend
}

// saves reports whether a step keeps the app from being refused soon: it extends the key, or makes the successor of one that
// cannot be extended.
func (a *Agent) saves(k kind, now instant) bool {
	switch k {
	case findKey, extendKey:
		return a.endangered(now)
	case draftKey, settleMint, verifyKey:
		return a.waning(now) && a.current.limits.cannotExtend
	}
	return false
}
