package balena

import (
	"sync"
	"time"
)

// maxDisagreement is how far the machine's two clocks may drift apart between two answers of
// the server before its time counts as unknown: the wall clock was set, or the machine slept.
const maxDisagreement = 2 * time.Second

// serverClock is the server's time as its Date headers tell it. The header has whole seconds,
// cut off, so the estimate is never ahead of the server by more than the network's delay.
type serverClock struct {
	mu   sync.Mutex
	date time.Time // as the server said
	at   time.Time // when that arrived, on both local clocks
}

func (c *serverClock) note(date, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.date, c.at = date, at
}

// at returns the server's time at the local instant now, and whether it can be relied on: not
// before the first answer, and not when the local clocks disagree about the time since then.
func (c *serverClock) now(now time.Time) (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.date.IsZero() {
		return now.Round(0), false
	}
	mono := now.Sub(c.at)
	wall := now.Round(0).Sub(c.at.Round(0))
	return c.date.Add(mono), (wall - mono).Abs() <= maxDisagreement
}

// skew returns how far the local wall clock is ahead of the server's, at the last answer.
func (c *serverClock) skew() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.date.IsZero() {
		return 0, false
	}
	return c.at.Round(0).Sub(c.date), true
}
