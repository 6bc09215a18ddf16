package agent

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/turn"
)

// still is an Issuer of which nothing is asked.
type still struct{ Issuer }

func (still) Now() (time.Time, bool)          { return time.Now(), true }
func (still) KnownUser(context.Context) int64 { return 1 }

// tooOld returns an agent whose key has so much life left, is too old to be extended, and is due to be checked.
func tooOld(left time.Duration) (*Agent, instant) {
	times := Times{TTL: time.Hour, MaxTTL: 2 * time.Hour, Overlap: time.Minute, Check: 15 * time.Minute}
	a := New(Config{Log: slog.New(slog.DiscardHandler), Issuer: still{}, Budget: NewBudget(times, false), Times: times,
		Crowd: Crowd{Turns: turn.New(turn.Config{Shared: true}), Together: true, Attended: true}})
	now := a.clock.now()
	a.current = a.hold(record{Name: "test-0", ID: 5, State: published, Kind: key.User, Created: time.Now().Add(-90 * time.Minute),
		Expiry: time.Now().Add(left)})
	a.current.health, a.current.told.row = accepted, true
	a.timed, a.tendDone, a.nextCheck = true, true, now.add(-time.Second)
	return a, now
}

// TestAWaitEndsWhenAKeyIsInDanger wakes an agent whose replacement waits for its turn while there is time to extend.
func TestAWaitEndsWhenAKeyIsInDanger(t *testing.T) {
	a, now := tooOld(15 * time.Minute)
	if wait := a.nextEvent(now); wait > 5*time.Minute {
		t.Errorf("it looks again in %v, when the key has %v left", wait, 15*time.Minute-wait)
	}
}

// TestWhatSavesAKeyGoesFirst: an extension, or, for one that cannot be extended, its successor. A check is neither.
func TestWhatSavesAKeyGoesFirst(t *testing.T) {
	for _, c := range []struct {
		left    time.Duration
		cannot  bool
		first   kind
		urgency turn.Urgency
	}{
		{11 * time.Minute, false, settleMint, turn.Finish},
		{9 * time.Minute, false, extendKey, turn.Save},
		{11 * time.Minute, true, settleMint, turn.Finish},
		{9 * time.Minute, true, settleMint, turn.Save},
	} {
		a, now := tooOld(c.left)
		a.current.limits.cannotExtend = c.cannot
		a.successor = a.hold(record{Name: "test-1", State: minting, Expiry: time.Now().Add(time.Hour), Created: time.Now()})
		first, _ := a.next(now)
		if urgency, _ := a.need(first, now); first.kind != c.first || urgency != c.urgency {
			t.Errorf("%v left, cannot be extended %v: first is %q with urgency %d, want %q with %d", c.left, c.cannot, first.kind, urgency,
				c.first, c.urgency)
		}
	}
}
