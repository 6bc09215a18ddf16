package sidecar

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/balena-injector/injector/agent"
)

// TestALoopThatIsStuck has an agent that makes no progress: run gives it up, and does not wait for it.
func TestALoopThatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{}
		k.current.Store(agent.New(agent.Config{}))
		a := &App{keepers: []*keeper{k}}
		stuck := make(chan struct{})
		began := time.Now()
		if err := a.guarded(t.Context(), func() error { <-stuck; return nil }); !errors.Is(err, ErrStuck) ||
			time.Since(began) > 8*time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		close(stuck)
		if err := a.guarded(t.Context(), func() error { return ErrStopped }); !errors.Is(err, ErrStopped) {
			t.Error(err)
		}
		stop, end := context.WithCancel(t.Context())
		end() // an orderly end may take as long as it was given
		if err := a.guarded(stop, func() error { time.Sleep(20 * time.Minute); return nil }); err != nil {
			t.Error(err)
		}
	})
}
