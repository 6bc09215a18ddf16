package agent

import (
	"time"

	"github.com/balena-injector/injector/key"
)

// Times is the schedule of a key. All fields are required but MaxTTL.
type Times struct {
	TTL     time.Duration // how far ahead an expiry is set; at least key.MinTTL
	MaxTTL  time.Duration // how old a key may get before it is replaced; 0: never replaced
	Overlap time.Duration // how long the old key lives on after a new one was published
	Check   time.Duration // how often the server is asked whether the key lives
}

const (
	// maxSleep bounds how late the agent is after the machine slept or its clock was set.
	maxSleep = 30 * time.Second
	// attendedSleep is the same where somebody else watches for that.
	attendedSleep = 15 * time.Minute
	// grace is how long a new key may be refused before it counts as dead: balenaCloud's
	// servers need up to 71 s to learn of a change (a public transcript), openBalena 10 ms.
	grace = time.Minute
	// gracePause lies between two questions during the grace.
	gracePause = 15 * time.Second
	// refusedPause is how long a refused credential rests, unless it changes.
	refusedPause = time.Hour
	// slack is what whole seconds in Date headers cost when a remaining life is computed.
	slack = time.Second
)

// jitterFor spreads the extensions of many agents that started together: u is uniform in
// [0, 1), drawn once per key. It makes an extension earlier, never later.
func (t Times) jitterFor(u float64) time.Duration { return time.Duration(u * float64(t.TTL) / 6) }

// firstLife is how long the key of an Init lives at most, unless the sidecar that takes it over extends it: a pod that is deleted
// before that cannot revoke it.
const firstLife = 15 * time.Minute

// lastCalls are the times before a key's expiry at which a step that the app's token depends on is tried, whatever
// pause it was given, the first one first; negative ones are after the expiry. An outage that ends five seconds before
// the expiry then costs nothing, and one that ends within seconds after it a few more.
func (t Times) lastCalls() []time.Duration {
	unit := min(time.Second, t.TTL/20)
	return []time.Duration{7 * unit / 2, unit, -unit / 2, -2 * unit, -5 * unit, -10 * unit}
}

// dangerous is how little life a key has left when to extend it becomes more urgent than all else.
func (t Times) dangerous() time.Duration { return max(t.TTL/6, t.lastCalls()[0]) }

// lead is how long before its expiry a key is extended: a third of the TTL, and the jitter.
func (t Times) lead(jitter time.Duration) time.Duration { return t.TTL/3 + jitter }

// tooOld reports whether a key of that age must be replaced instead of extended once more.
func (t Times) tooOld(age time.Duration) bool { return t.MaxTTL > 0 && age+t.TTL > t.MaxTTL }

// extensionsLeft returns how many more extensions, a step apart, a key of that age gets before
// one would make it too old. It is 0 if that is so already. MaxTTL must not be 0.
func (t Times) extensionsLeft(age, step time.Duration) int {
	if t.tooOld(age) {
		return 0
	}
	return int((t.MaxTTL-t.TTL-age)/step) + 1
}

// retryCap is the longest pause between two tries of a step, for a key with that much life left.
// While the app's key is healthy (calm), nobody waits for the step: the pauses grow with what is
// left, so that the agents that one outage stopped do not come back within the same minute.
// Once it has expired, the app waits: they begin anew with a second, and grow with the time since.
func retryCap(left time.Duration, calm bool) time.Duration {
	if left <= 0 {
		return min(time.Minute, max(time.Second, -left/2))
	}
	c := min(time.Minute, max(20*time.Second, left/8))
	if calm {
		c = max(c, min(10*time.Minute, left/5))
	}
	return c
}

// retryPause returns how long to wait after the nth failure in a row (n from 1): uniform in
// [c/2, c] for u in [0, 1), with c doubling from 1 s up to the cap.
func retryPause(n int, limit time.Duration, u float64) time.Duration {
	c := min(limit, time.Second<<min(n-1, 10))
	return c/2 + time.Duration(u*float64(c/2))
}

// askedFor returns how long a step must rest after a failure of that class, however much is in a
// hurry: what the server asked for, with some jitter, and an hour for a refused credential. A step
// rests for its own retryPause, too, so that being asked to wait again and again makes it wait longer.
func askedFor(class key.Class, wait time.Duration, u float64) time.Duration {
	switch {
	case class == key.Busy, class == key.Ambiguous && wait > 0:
		return wait + time.Duration(u*float64(min(time.Minute, wait)))
	case class == key.Refused && wait > 0:
		return wait
	case class == key.Refused, class == key.FreshLogin:
		return refusedPause
	}
	return 0
}

// replacementGap is how long after an unplanned mint the next one may come. It doubles, up to
// ten minutes, while keys die young.
func (t Times) replacementGap(young int) time.Duration {
	gap := min(30*time.Second, t.TTL/2)
	for range min(young, 10) {
		gap *= 2
	}
	return min(gap, 10*time.Minute)
}

// diesYoung reports whether a key that lived so long before it was found dead died young.
func (t Times) diesYoung(lived time.Duration) bool { return lived < min(10*time.Minute, t.TTL) }
