package agent

import (
	"testing"
	"time"

	"github.com/balena-injector/injector/key"
)

func TestExtensionsComeInTheStatedWindow(t *testing.T) {
	for _, ttl := range []time.Duration{time.Minute, 5 * time.Minute, time.Hour, 12 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour,
		90 * 24 * time.Hour} {
		times := Times{TTL: ttl}
		for _, u := range []float64{0, 0.25, 0.5, 0.999999} {
			at := ttl - times.lead(times.jitterFor(u)) // after the last extension
			if at < ttl/2 || at > ttl*2/3+1 {
				t.Errorf("TTL %v, u %v: extended after %v", ttl, u, at)
			}
		}
		if times.lead(0) != ttl/3 {
			t.Errorf("TTL %v: without jitter the lead is %v", ttl, times.lead(0))
		}
	}
}

func TestTooOld(t *testing.T) {
	for _, c := range []struct {
		ttl, max, age time.Duration
		want          bool
	}{
		{time.Hour, 0, 1000 * time.Hour, false},
		{time.Hour, 24 * time.Hour, 0, false},
		{time.Hour, 24 * time.Hour, 23 * time.Hour, false},
		{time.Hour, 24 * time.Hour, 23*time.Hour + 1, true},
		{time.Hour, time.Hour, 1, true},
	} {
		if got := (Times{TTL: c.ttl, MaxTTL: c.max}).tooOld(c.age); got != c.want {
			t.Errorf("TTL %v, MAX_TTL %v, age %v: %v", c.ttl, c.max, c.age, got)
		}
	}
}

func TestExtensionsLeft(t *testing.T) {
	times := Times{TTL: time.Hour, MaxTTL: 24 * time.Hour}
	for _, step := range []time.Duration{30 * time.Minute, 40 * time.Minute} {
		for age := time.Duration(0); age < 25*time.Hour; age += 7 * time.Minute {
			want, at := 0, age
			for !times.tooOld(at) {
				want, at = want+1, at+step
			}
			if got := times.extensionsLeft(age, step); got != want {
				t.Errorf("age %v, step %v: %d, not %d", age, step, got, want)
			}
		}
	}
}

func TestRetryPause(t *testing.T) {
	for _, c := range []struct {
		n        int
		left     time.Duration
		calm     bool // the app's key is well
		min, max time.Duration
	}{
		{1, time.Hour, false, 500 * time.Millisecond, time.Second},
		{2, time.Hour, true, time.Second, 2 * time.Second},
		{5, time.Hour, false, 8 * time.Second, 16 * time.Second},
		{6, time.Hour, true, 16 * time.Second, 32 * time.Second},
		{7, time.Hour, false, 30 * time.Second, time.Minute},
		{1000, time.Hour, false, 30 * time.Second, time.Minute},
		{1000, 5 * time.Minute, false, 18750 * time.Millisecond, 37500 * time.Millisecond}, // an eighth of what is left
		{1000, time.Minute, true, 10 * time.Second, 20 * time.Second},
		{1000, 0, false, 500 * time.Millisecond, time.Second}, // expired: the app waits
		{1000, -time.Minute, false, 15 * time.Second, 30 * time.Second},
		{1000, -time.Hour, true, 30 * time.Second, time.Minute},
		{8, time.Hour, true, 64 * time.Second, 128 * time.Second},
		{1000, time.Hour, true, 5 * time.Minute, 10 * time.Minute},
		{1000, 90 * 24 * time.Hour, true, 5 * time.Minute, 10 * time.Minute},
		{1000, 20 * time.Minute, true, 2 * time.Minute, 4 * time.Minute}, // a fifth of what is left
	} {
		limit := retryCap(c.left, c.calm)
		lo, hi := retryPause(c.n, limit, 0), retryPause(c.n, limit, 0.9999999)
		if lo != c.min || hi > c.max || hi < c.max-time.Millisecond {
			t.Errorf("failure %d with %v left, calm %v: %v to %v, not %v to %v", c.n, c.left, c.calm, lo, hi, c.min, c.max)
		}
	}
}

func TestAskedFor(t *testing.T) {
	for _, c := range []struct {
		class    key.Class
		wait     time.Duration
		min, max time.Duration
	}{
		{key.Busy, 10 * time.Second, 10 * time.Second, 20 * time.Second},
		{key.Busy, time.Hour, time.Hour, time.Hour + time.Minute},
		{key.Ambiguous, 30 * time.Second, 30 * time.Second, time.Minute},
		{key.Refused, 0, time.Hour, time.Hour},
		{key.Refused, 5 * time.Minute, 5 * time.Minute, 5 * time.Minute},
		{key.FreshLogin, 0, time.Hour, time.Hour},
		{key.Outage, 0, 0, 0},
		{key.Wrong, 0, 0, 0},
		{key.Unknown, 0, 0, 0},
	} {
		lo, hi := askedFor(c.class, c.wait, 0), askedFor(c.class, c.wait, 0.999999)
		if lo < c.min || hi > c.max {
			t.Errorf("%v with wait %v: %v to %v", c.class, c.wait, lo, hi)
		}
	}
}

func TestReplacementGap(t *testing.T) {
	hour := Times{TTL: time.Hour}
	for young, want := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute,
		10 * time.Minute, 10 * time.Minute} {
		if got := hour.replacementGap(young); got != want {
			t.Errorf("after %d that died young: %v, not %v", young, got, want)
		}
	}
	if got := hour.replacementGap(1 << 40); got != 10*time.Minute {
		t.Errorf("got %v", got)
	}
	if got := (Times{TTL: 20 * time.Second}).replacementGap(0); got != 10*time.Second {
		t.Errorf("half the TTL if that is less: %v", got)
	}
}

// TestTheEarlierClockWins has the jumps that a bubble of virtual time cannot make.
func TestTheEarlierClockWins(t *testing.T) {
	wall := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	start := instant{0, wall}
	due := start.add(time.Hour)
	for _, c := range []struct {
		name       string
		mono, wall time.Duration // since start
		want       time.Duration
	}{
		{"at the start", 0, 0, time.Hour},
		{"half way", 30 * time.Minute, 30 * time.Minute, 30 * time.Minute},
		{"the machine slept for two hours", time.Minute, 2*time.Hour + time.Minute, -61 * time.Minute},
		{"the clock was set an hour ahead", time.Minute, 61 * time.Minute, -time.Minute},
		{"the clock was set an hour back", 59 * time.Minute, -time.Minute, time.Minute},
		{"the clock was set to 1970", 2 * time.Hour, -56 * 365 * 24 * time.Hour, -time.Hour},
	} {
		if got := until(instant{c.mono, wall.Add(c.wall)}, due); got != c.want {
			t.Errorf("%s: %v, not %v", c.name, got, c.want)
		}
	}
}

func TestBudget(t *testing.T) {
	for _, c := range []struct {
		times    Times
		rotating bool
		want     time.Duration
	}{
		{Times{TTL: time.Hour, MaxTTL: 24 * time.Hour, Check: 5 * time.Minute}, false, 30 * time.Second},
		{Times{TTL: time.Hour, Check: 5 * time.Minute}, true, 30 * time.Second},
		{Times{TTL: 5 * time.Minute, MaxTTL: 24 * time.Hour, Check: 5 * time.Minute}, false, 30 * time.Second},
		{Times{TTL: 10 * time.Second, Check: time.Second}, false, 714285714},
	} {
		if got := refillFor(c.times, c.rotating); got != c.want {
			t.Errorf("%+v: %v, not %v", c.times, got, c.want)
		}
	}
	b := NewBudget(Times{TTL: time.Hour, Check: time.Hour}, false)
	for i := range budgetSize {
		if wait := b.Admit(0); wait != 0 {
			t.Fatalf("request %d waits %v", i, wait)
		}
	}
	if wait := b.Admit(0); wait < 29*time.Second || wait > 31*time.Second {
		t.Errorf("the one too many waits %v", wait)
	}
	if wait := b.untilHas(reserve + 1); wait < 269*time.Second || wait > 271*time.Second {
		t.Errorf("the reserve is there in %v", wait)
	}
	if wait := b.Admit(time.Minute); wait != time.Minute {
		t.Errorf("the server's wish counts: %v", wait)
	}
	b.Open()
	if wait := b.Admit(time.Hour); wait != 0 {
		t.Errorf("a stop waits %v", wait)
	}
}
