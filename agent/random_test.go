package agent_test

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/tally"
)

var (
	long = flag.Bool("long", false, "run the long versions: more seeds, more days, more agents")
	seed = flag.Uint64("seed", 0, "run only this seed")
)

// TestDaysOfRandomFailures lives through days in which one request in a hundred fails in a random
// way: the app never reads a token that is refused, and no key is left.
func TestDaysOfRandomFailures(t *testing.T) {
	seeds, days := 3, 30
	switch {
	case *long:
		seeds = 20
	case raceEnabled: // it is slow
		days = 5
	}
	for n := range seeds {
		s := *seed
		if s == 0 {
			s = uint64(time.Now().UnixNano()) + uint64(n)
		}
		t.Run("", func(t *testing.T) {
			t.Parallel()
			randomDays(t, s, days)
		})
		if *seed != 0 {
			return
		}
	}
	t.Logf("%d seeds of %d virtual days", seeds, days)
}

// wantKnown checks that at most two keys are live, and that the agent knows each of them.
func (l *life) wantKnown() {
	l.w.t.Helper()
	s := l.agent.Status()
	known := map[string]bool{}
	for _, k := range append(append([]agent.KeyStatus{}, s.Old...), deref(s.Key, s.Coming)...) {
		known[k.Name] = true
	}
	live := l.w.server.Live()
	for _, k := range live {
		if !known[k.Name] {
			tally.Add("keys leaked", 1)
			l.w.t.Fatalf("%s is live, and the agent does not know it", k.Name)
		}
	}
	if len(live) > 2 {
		l.w.t.Fatalf("%d keys are live", len(live))
	}
}

func deref(keys ...*agent.KeyStatus) (list []agent.KeyStatus) {
	for _, k := range keys {
		if k != nil {
			list = append(list, *k)
		}
	}
	return list
}

func randomDays(t *testing.T, seed uint64, days int) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		defer func() {
			if t.Failed() {
				t.Logf("repeat with -seed %d", seed)
			}
		}()
		w.inMemory()
		w.random = rand.New(rand.NewPCG(seed, 1)).Float64
		l := w.run()
		w.published(time.Minute)
		chance := rand.New(rand.NewPCG(seed, 2)).Float64
		kinds := failures()
		for _, f := range kinds {
			if f.name == "429 absurd" {
				continue // an hour's wait once in a while would be an hour's wait all the time
			}
			fault := f.fault
			fault.Match = func(balenatest.Match) bool { return chance() < 0.01/float64(len(kinds)-1) }
			w.server.Fail(fault)
		}
		for range days * 24 * 60 {
			w.sleep(time.Minute)
			w.wantGood()
			l.wantKnown()
			if t.Failed() {
				break
			}
		}
		w.server.Heal()
		w.sleep(5 * time.Minute)
		l.endWell()
	})
}
