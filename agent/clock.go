package agent

import "time"

// instant is a point in time on both local clocks. The monotonic clock stops while the machine
// sleeps; the wall clock may be set. Neither can be trusted alone.
type instant struct {
	mono time.Duration // since the agent started
	wall time.Time     // without a monotonic part
}

func (i instant) isZero() bool { return i.wall.IsZero() }

func (i instant) add(d time.Duration) instant {
	return instant{i.mono + d, i.wall.Add(d)}
}

// until returns how long it is from now to at, by the clock that says less; it is negative when
// at has passed.
func until(now, at instant) time.Duration {
	return min(at.mono-now.mono, at.wall.Sub(now.wall))
}

// clock reads both clocks.
type clock struct {
	start time.Time
	wall  func() time.Time
}

func newClock(wall func() time.Time) clock {
	if wall == nil {
		wall = time.Now
	}
	return clock{start: time.Now(), wall: wall}
}

func (c clock) now() instant {
	return instant{mono: time.Since(c.start), wall: c.wall().Round(0)}
}
