package agent_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/tally"
)

// batchFailures are failures, and those that only a request about many keys can have.
func batchFailures() []failure {
	return append(failures(), failure{name: "half of the list", fault: balenatest.Fault{Half: true}},
		failure{name: "the query is lost", fault: balenatest.Fault{Unfiltered: true}})
}

var batchSpans = []span{{name: "once", times: 1}, {name: "for ten minutes", long: 10 * time.Minute}, {name: "at the stop", times: 2}}

// changes reports whether a request that lost its query would change keys of nobody in particular. The stand-in obeys it, as
// the server would, so such a fault is for reading only: that no such request is sent where reading shows the loss is what
// is tested.
func changes(kind string) bool { return kind == "extend" || kind == "revoke" }

// TestFaultMatrixOfBatches lets every request about many keys fail in every way, for a while, in a life of some hours, and at
// the stop.
func TestFaultMatrixOfBatches(t *testing.T) {
	batch := func(m balenatest.Match) bool { return !strings.Contains(m.Path, "(") }
	cells := 0
	for _, kind := range []string{"list", "find", "extend", "revoke"} {
		for _, f := range batchFailures() {
			for _, s := range batchSpans {
				if f.fault.Unfiltered && changes(kind) || f.fault.Header.Get("Retry-After") == "99999999999" {
					continue // see changes; and that one is an outage of an hour
				}
				cells++
				if raceEnabled && cells%raceShare != 0 {
					continue
				}
				name := strings.ReplaceAll(kind+"/"+f.name+"/"+s.name, " ", "-")
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					inWorld(t, balenatest.Options{}, func(w *world) { w.batchCell(kind, batch, f, s) })
				})
			}
		}
	}
	t.Logf("%d cells", cells)
}

// batchCell is one cell of the matrix: twenty keys are made, extended, replaced and revoked.
func (w *world) batchCell(kind string, match func(balenatest.Match) bool, f failure, s span) {
	w.times = agent.Times{TTL: time.Hour, MaxTTL: 3 * time.Hour, Overlap: time.Minute, Check: 5 * time.Minute}
	foreign := w.server.AddKey(w.server.DefaultUser(), "test-of-somebody-else", time.Now().Add(100*time.Hour))
	h := w.household(20)
	h.start()
	h.until(2*time.Minute, "a token", h.good)
	fault := f.fault
	fault.Kind, fault.Match, fault.Times, fault.For = kind, match, s.times, s.long
	var once sync.Once
	if f.down {
		fault.Match = func(m balenatest.Match) bool {
			if hit := match(m); hit {
				once.Do(func() { go w.outage(max(s.long, time.Minute)) })
				return true
			}
			return false
		}
	}
	if s.name == "at the stop" {
		h.live(90*time.Minute, time.Minute)
		w.server.Fail(fault)
	} else {
		h.live(20*time.Minute, time.Minute)
		w.server.Fail(fault)
		h.live(4*time.Hour, time.Minute)
		w.server.Heal()
		h.live(30*time.Minute, time.Minute)
		if n := h.ready(); n != 20 {
			w.t.Errorf("%d of 20 are ready", n)
		}
		if live := len(w.server.Live()) - 1; live > 2*20 {
			w.t.Errorf("%d keys are live", live)
		}
	}
	left := namedIn(h.end(nil))
	w.server.Heal()
	w.sleep(time.Minute) // an outage may last that long
	w.server.Settle()
	live := len(w.server.Live()) - 1
	tally.Add("keys leaked", max(0, live-left))
	if live > left {
		w.t.Errorf("%d keys are live, and %d are said to be left", live, left)
	}
	if left > 0 && s.name != "at the stop" {
		w.t.Errorf("the stop left %d keys", left)
	}
	if !w.server.Accepts(foreign.Secret) {
		w.t.Error("somebody else's key is gone")
	}
	w.server.Forget() // twenty agents' requests are no one agent's pace
	tally.Add("cells of the fault matrix of batches", 1)
}

// namedIn counts the keys that were left, as these errors name them.
func namedIn(errs []error) (n int) {
	for _, err := range errs {
		if left, ok := errors.AsType[*agent.LeftError](err); ok {
			n += len(left.Keys)
		}
	}
	return n
}

// outage takes the server's database away for so long.
func (w *world) outage(d time.Duration) {
	w.server.SetDown(true)
	time.Sleep(d)
	w.server.SetDown(false)
}
