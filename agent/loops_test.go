package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// looped is something that a platform starts again whenever it ends, with the pauses that Docker makes: a tenth of a
// second at first, doubling to a minute, from the beginning again after ten seconds of running.
type looped struct {
	name string
	life func(w *world) error
}

func supervised(lasts time.Duration) func(w *world) error {
	return func(w *world) error {
		l := w.begin(func(a *agent.Agent, stop, kill context.Context) error {
			ended, end := context.WithCancelCause(stop)
			defer end(nil)
			return a.Supervise(ended, kill, func() {
				time.AfterFunc(lasts, func() { end(fmt.Errorf("exit code 1: %w", agent.ErrMayRestart)) })
			})
		})
		return l.wait()
	}
}

func loops() []looped {
	return []looped{
		{"exec -- false", supervised(0)},
		{"exec -- sh -c 'sleep 11; exit 1'", supervised(11 * time.Second)},
		{"init, which fails", func(w *world) error { return w.init() }},
		{"run, which is killed", func(w *world) error {
			l := w.run()
			w.sleep(5 * time.Second)
			l.handOver() // which leaves what a crash leaves
			return nil
		}},
	}
}

// TestRestartLoops lets each loop turn for ten minutes with an API that is well, that refuses the credential, and whose
// DELETEs fail. The state directory survives, and with it what was sent.
func TestRestartLoops(t *testing.T) {
	for _, loop := range loops() {
		for name, api := range map[string]func(w *world){
			"well":            func(*world) {},
			"refusing":        func(w *world) { w.usePassword(w.login, "wrong") },
			"failing DELETEs": func(w *world) { w.server.Fail(balenatest.Fault{Kind: "revoke", Status: 503}) },
			"away":            func(w *world) { w.server.SetRestarting(true) },
		} {
			t.Run(loop.name+", "+name, func(t *testing.T) {
				inWorld(t, balenatest.Options{}, func(w *world) {
					api(w)
					began := time.Now()
					starts := w.turn(loop, 10*time.Minute, name == "well" && loop.name != "run, which is killed")
					requests, logins := w.countUntil(began.Add(10 * time.Minute))
					t.Logf("%d starts, %d requests, %d logins, %d mints", starts, requests, logins, w.server.Count("mint"))
					if requests > 40 || logins > 5 && name != "away" { // a login without an answer is an outage's
						t.Errorf("%d requests and %d logins in ten minutes", requests, logins)
					}
					if live := len(w.server.Live()); live > 2 {
						t.Errorf("%d keys are live", live)
					}
					w.server.Heal()
					w.server.SetRestarting(false)
					w.usePassword(w.server.DefaultUser().Name, w.server.DefaultUser().Password)
					l := w.begin((*agent.Agent).Revoke)
					if err := l.wait(); err != nil && !errors.As(err, new(*agent.LeftError)) {
						t.Error(err)
					}
					w.sleep(2 * time.Hour) // what the budget did not suffice for
					w.wantLive(0)
				})
			})
		}
	}
}

// TestInitWithKeysThatCannotBeRevoked has an init that finds two keys of other fleets in its journal, whose DELETEs fail:
// a third one is not minted before there is room, and init gives up, again and again.
func TestInitWithKeysThatCannotBeRevoked(t *testing.T) {
	inWorld(t, balenatest.Options{ListsAll: true}, func(w *world) {
		w.kind = key.Fleet
		for _, slug := range []string{"acme/one", "acme/two"} {
			w.server.AddFleet(w.server.DefaultUser(), slug)
			w.target = slug
			l := w.run()
			w.published(time.Second)
			w.server.Fail(balenatest.Fault{Kind: "revoke", Status: 503})
			l.handOver()
		}
		w.wantLive(2)
		w.kind, w.target = key.User, ""
		w.server.Forget()
		began := time.Now()
		starts := w.turn(looped{"init, which fails", func(w *world) error { return w.init() }}, 10*time.Minute, false)
		requests, logins := w.countUntil(began.Add(10 * time.Minute))
		t.Logf("%d starts, %d requests, %d logins", starts, requests, logins)
		if starts < 2 || requests > 40 || logins > 5 {
			t.Errorf("%d starts, %d requests and %d logins in ten minutes", starts, requests, logins)
		}
		w.wantLive(2)
		w.server.Heal()
		w.sleep(5 * time.Minute)
		if err := w.init(); err != nil {
			t.Error(err)
		}
		w.run().endWell()
	})
}

// turn lets a loop turn for so long, and returns how often it started.
func (w *world) turn(loop looped, d time.Duration, clean bool) (starts int) {
	w.t.Helper()
	pause := 100 * time.Millisecond
	for end := time.Now().Add(d); time.Now().Before(end); starts++ {
		began := time.Now()
		_ = loop.life(w)
		if clean && starts < 3 && loop.name != "init, which fails" {
			w.wantLive(0)
		}
		if pause *= 2; time.Since(began) > 10*time.Second {
			pause = 100 * time.Millisecond
		}
		w.sleep(min(pause, time.Minute))
	}
	return starts
}

// countUntil returns how many requests and logins were seen before that time.
func (w *world) countUntil(end time.Time) (requests, logins int) {
	for _, r := range w.server.Requests() {
		if r.At.Before(end) {
			requests++
			if r.Kind == "login" {
				logins++
			}
		}
	}
	return requests, logins
}

// TestStartsWithoutAState prints what a start costs whose state directory died with the last one, as a container's own
// /dev/shm does: nothing can be carried over.
func TestStartsWithoutAState(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		life := supervised(0)
		for n := range 3 {
			w.server.Forget()
			_ = life(w)
			t.Logf("start %d: %v", n+1, w.server.Counts())
			if all := w.server.Count(""); all > 6 { // login, mint, verification; DELETE and its proof, and the row before
				t.Errorf("%d requests", all)
			}
			w.wantLive(0)
			if err := os.RemoveAll(w.dir + "/.injector"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestTheWaitOfALoop looks at the wait itself: it is said, it is not counted towards the time for Init, a signal ends
// it, and a life of some length or a stop that somebody asked for begins anew.
func TestTheWaitOfALoop(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.initTime = 20 * time.Second
		fails := supervised(0)
		_ = fails(w)
		began := time.Now()
		_ = fails(w)
		if waited := time.Since(began); waited < 29*time.Second || waited > 31*time.Second || w.server.Count("mint") != 2 {
			t.Errorf("the second mint came after %v", waited)
		}
		w.wantLog("waiting before a key is minted")

		l := w.begin(func(a *agent.Agent, stop, kill context.Context) error { return a.Supervise(stop, kill, func() {}) })
		w.sleep(5 * time.Second)
		if ready, why := l.agent.Ready(); ready || why == "no key yet" {
			t.Errorf("ready %v: %s", ready, why)
		}
		if took, err := l.end(); took > time.Second {
			t.Errorf("a stop during the wait took %v: %v", took, err)
		}
		if n := w.server.Count("mint"); n != 2 {
			t.Errorf("%d mints", n)
		}

		l = w.run() // that was a stop which somebody asked for
		w.published(time.Second)
		l.endWell()

		_ = supervised(11 * time.Minute)(w)
		began = time.Now()
		_ = fails(w)
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("after a long life it waited for %v", waited)
		}
		w.wantLive(0)
	})
}

// TestABudgetOfTheFuture has a journal that was written by a clock ahead, or so long ago that it says nothing.
func TestABudgetOfTheFuture(t *testing.T) {
	for name, by := range map[string]time.Duration{"ahead": 30 * time.Minute, "long ago": -2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				var ahead time.Duration
				w.wall = func() time.Time { return time.Now().Add(ahead) }
				ahead = by
				fails := supervised(0)
				for range 2 {
					_ = fails(w)
				}
				ahead = 0
				began := time.Now()
				_ = fails(w)
				if waited := time.Since(began); waited > time.Second {
					t.Errorf("it waited for %v", waited)
				}
				w.wantLive(0)
				w.server.Forget()
			})
		})
	}
}
