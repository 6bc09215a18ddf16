package sidecar

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestDisturbedGround wakes the agents once for each disturbance, within half a minute, and never else.
func TestDisturbedGround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var skew, renewals, woken atomic.Int64
		ctx, stop := context.WithCancel(t.Context())
		go attendGround(ctx, func() ground {
			return ground{mono: time.Since(began), wall: time.Now().Round(0).Add(time.Duration(skew.Load())),
				renewals: int(renewals.Load())}
		}, func() { woken.Add(1) })
		for _, step := range []struct {
			what     string
			skew     time.Duration
			renewals int64
			wakes    int64
		}{
			{"nothing", 0, 0, 0},
			{"the machine slept, or the clock was set ahead", 2 * time.Minute, 0, 1},
			{"the clock was set back", -2 * time.Minute, 0, 1},
			{"a clock that is being slewed", 600 * time.Millisecond, 0, 0},
			{"and goes on so", 600 * time.Millisecond, 0, 1},
			{"another state directory", 0, 1, 1},
		} {
			synctest.Wait()
			woken.Store(0)
			skew.Add(int64(step.skew))
			renewals.Add(step.renewals)
			for _, later := range []time.Duration{attendEvery, time.Hour} {
				time.Sleep(later)
				synctest.Wait()
				if n := woken.Load(); n != step.wakes {
					t.Errorf("%s: woken %d times %v later, want %d", step.what, n, later, step.wakes)
				}
			}
		}
		stop()
		synctest.Wait()
	})
}
