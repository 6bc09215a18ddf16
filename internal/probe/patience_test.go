package probe

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestPatience asks as an engine does: again two seconds after each answer, from before the injector is ready.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p patience
		began := time.Now()
		readyAt := began.Add(15 * time.Second)
		deadAt := began.Add(200 * time.Second)
		ready := func() bool { return !time.Now().Before(readyAt) && time.Now().Before(deadAt) }
		const hold, interval = time.Minute, 2 * time.Second
		type seen struct {
			at    time.Duration
			ready bool
		}
		var list []seen
		for time.Since(began) < 5*time.Minute {
			time.Sleep(interval)
			p.wait(context.Background(), hold, ready)
			list = append(list, seen{time.Since(began), ready()})
		}
		first := func(want bool, from time.Duration) time.Duration {
			for _, s := range list {
				if s.ready == want && s.at >= from {
					return s.at
				}
			}
			return -1
		}
		if at := first(true, 0); at < 15*time.Second || at > 15*time.Second+interval {
			t.Errorf("ready after 15 s, and said after %v", at)
		}
		if at := first(false, 20*time.Second); at < 200*time.Second || at > 200*time.Second+interval {
			t.Errorf("not ready any more after 200 s, and said after %v", at)
		}
		dead := 0 // engines want three answers in a row
		for _, s := range list {
			if !s.ready && s.at >= 200*time.Second && s.at <= 210*time.Second {
				dead++
			}
		}
		if dead < 3 {
			t.Errorf("%d answers within 10 s of the end: %v", dead, list)
		}
		if len(list) > 16 {
			t.Errorf("%d answers in 5 minutes: %v", len(list), list)
		}
	})
}

// TestPatienceEnds with the one who asks.
func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p patience
		yes := func() bool { return true }
		p.wait(context.Background(), time.Minute, yes)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		began := time.Now()
		p.wait(ctx, time.Minute, yes)
		if took := time.Since(began); took != time.Second {
			t.Errorf("held for %v", took)
		}
	})
}
