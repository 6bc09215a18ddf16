package agent

import (
	"hash/fnv"
	"math"
	"time"

	"github.com/balena-injector/injector/turn"
)

// Crowd says how an agent gets on with the others that keep keys of the same account in the same process. The zero value
// is an agent that is alone.
type Crowd struct {
	// Turns is asked before requests are sent, for all agents; nil: nobody is.
	Turns *turn.Queue
	// Together reports that the Issuer extends, revokes and finds the keys of several agents in one request, if they ask
	// at the same time. So extensions that are due in the same stretch of time are made at its beginning, never later.
	Together bool
	// Epoch is where such stretches begin; the same for all agents, by the monotonic clock.
	Epoch time.Time
	// List, if not nil, asks for Sighted to be called, soon and from then on at least once in each check interval: somebody
	// lists the keys of many agents at once. The agent itself asks for its key only when that fails to come. It must not
	// block.
	List func()
	// Attended reports that somebody calls LookAgain whenever the outputs or the state directory may have changed, or the
	// machine's clocks were set or stood still. Otherwise the agent looks for itself, every half a minute.
	Attended bool
	// Requests and Files, if not nil, do the work of all agents that sends requests, and that reads and writes files.
	Requests, Files *turn.Workers
	// Spread makes the first key of a journal live only a part of MaxTTL, at random, so that keys which began together are
	// not replaced together for ever.
	Spread bool
}

// findStretch is the same for ids: until one is known, a stop takes more requests.
func (t Times) findStretch() time.Duration { return min(30*time.Second, t.stretch()) }

// margin is how much earlier than planned an extension is made at least where others are made with it: an outage is
// found to be over a while after its end.
const margin = 30 * time.Second

// stretch is how long a time is whose extensions are made together.
func (t Times) stretch() time.Duration { return min(5*time.Minute, t.TTL/30) }

// aligned returns the beginning of the stretch of time before at, at least some margin earlier.
func (a *Agent) aligned(at instant) instant {
	early := min(margin, a.cfg.Times.TTL/60)
	since := a.clock.start.Sub(a.cfg.Crowd.Epoch) + at.mono - early
	return at.add(-early - modulo(since, a.cfg.Times.stretch()))
}

// atNextStretch returns the beginning of the stretch of time after at.
func (a *Agent) atNextStretch(at instant, stretch time.Duration) instant {
	since := a.clock.start.Sub(a.cfg.Crowd.Epoch) + at.mono
	return at.add(modulo(-since, stretch))
}

// modulo is the remainder that is not negative. stretch must be positive.
func modulo(d, stretch time.Duration) time.Duration { return ((d % stretch) + stretch) % stretch }

// retryStretch is the stretch of the times at which what has failed is tried again, so that it is tried together.
func (t Times) retryStretch() time.Duration { return min(time.Second, t.TTL/60) }

// timesOf is the schedule of h: the first of many keys lives shorter.
func (a *Agent) timesOf(h *holding) Times {
	t := a.cfg.Times
	if t.MaxTTL > 0 && a.cfg.Crowd.Spread && a.journal.Generation <= 1 {
		t.MaxTTL = max(t.TTL, firstLifeOf(h.rec.Name, t.MaxTTL))
	}
	return t
}

// firstLifeOf is between a tenth of the longest life and all of it, by the key's name, which is random and outlasts a
// restart.
func firstLifeOf(name string, longest time.Duration) time.Duration {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(name))
	part := float64(sum.Sum64()) / math.MaxUint64
	return longest/10 + time.Duration(part*float64(longest-longest/10))
}
