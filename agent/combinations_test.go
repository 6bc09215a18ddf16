package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/tally"
	"github.com/balena-injector/injector/key"
)

// The fault matrix goes through requests and failures. These go through what lies around a failure: how old a draft is
// when its mint is sent, who else uses its name, where in a key's life an outage ends, restarts, keys that are not
// configured any more, and credentials that change.

// TestTheAgeOfADraft has a mint that is held back for so long, of which one answer is then lost, for keys that a server
// lists and for others. Whatever follows, no key lives that the journal does not know of, and no third one.
func TestTheAgeOfADraft(t *testing.T) {
	for _, listed := range []bool{true, false} {
		for _, age := range []time.Duration{0, 20 * time.Minute, 40 * time.Minute, 65 * time.Minute, 3 * time.Hour} {
			for _, then := range []string{"stop", "go on", "start again"} {
				t.Run(fmt.Sprintf("listed %v, %v old, %s", listed, age, then), func(t *testing.T) {
					inWorld(t, balenatest.Options{ListsAll: listed}, func(w *world) {
						w.kind, w.target = key.Fleet, w.server.DefaultFleet().Slug
						l := w.holdMintBack(age)
						w.server.Fail(balenatest.Fault{Kind: "mint", After: true, Times: 1})
						for w.server.Count("mint") == 0 || len(w.server.All()) == 0 {
							w.sleep(time.Second)
						}
						switch then {
						case "start again":
							l.handOver()
							l = w.run()
						case "go on":
							w.liveWithTwo(90 * time.Minute)
							w.wantGood()
						}
						w.wantRecordedUntil(l)
					})
				})
			}
		}
	}
}

// holdMintBack starts a life whose first mint is not answered before so long.
func (w *world) holdMintBack(age time.Duration) *life {
	for left := age; left > 0; left -= time.Hour {
		w.server.Fail(balenatest.Fault{
			Kind:   "mint",
			Status: 429,
			Header: http.Header{"Retry-After": {fmt.Sprint(int(min(left, time.Hour).Seconds()))}},
			Times:  1,
		})
	}
	l := w.run()
	w.sleep(age)
	w.server.Heal()
	w.server.Forget()
	return l
}

// liveWithTwo lets time pass, with two live keys at most.
func (w *world) liveWithTwo(d time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); w.sleep(20 * time.Second) {
		if n := len(w.server.Live()); n > 2 {
			w.t.Fatalf("%d keys are live", n)
		}
	}
}

// wantRecordedUntil stops a life. What then lives must be in the journal, with an expiry that is not earlier than its own.
func (w *world) wantRecordedUntil(l *life) {
	w.t.Helper()
	if _, err := l.end(); err != nil && !errors.As(err, new(*agent.LeftError)) {
		w.t.Errorf("the end: %v", err)
	}
	raw, err := os.ReadFile(filepath.Join(w.dir, ".injector", "journal.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, k := range w.server.Live() {
		if !strings.Contains(string(raw), k.Name) {
			tally.Add("keys leaked", 1)
			w.t.Errorf("%s lives for another %v, and is in no record", k.Name, time.Until(k.Expiry))
		}
	}
	w.sleep(2 * time.Hour)
	w.wantLive(0)
}

// TestOthersOfTheSameName has somebody who makes a key of our very name as soon as it is listed, and at other times.
// Theirs is not touched, and ours is extended, replaced and revoked as ever.
func TestOthersOfTheSameName(t *testing.T) {
	for name, fault := range map[string]balenatest.Fault{
		"no failure":              {Kind: "none"},
		"the find fails":          {Kind: "find", Status: 503, Times: 1},
		"an extension is lost":    {Kind: "extend", After: true, Times: 1},
		"a deletion is lost":      {Kind: "revoke", After: true, Times: 1},
		"the mint's answer is":    {Kind: "mint", After: true, Times: 1},
		"a deletion does nothing": {Kind: "revoke", Hollow: true, Times: 1},
	} {
		for when, delay := range map[string]time.Duration{"at once": 0, "before the first extension": 10 * time.Minute,
			"before the rotation": 90 * time.Minute} {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, restart %v", name, when, restart), func(t *testing.T) {
					inWorld(t, balenatest.Options{}, func(w *world) {
						w.times.MaxTTL = 2 * time.Hour
						w.server.Fail(fault)
						l := w.run()
						for len(w.server.All()) == 0 {
							time.Sleep(time.Millisecond)
						}
						w.sleep(delay)
						ours := w.server.All()[0]
						expiry := time.Now().Add(1000 * time.Hour).UTC().Truncate(time.Millisecond)
						theirs := w.server.AddKey(w.server.DefaultUser(), ours.Name, expiry)
						if restart {
							w.sleep(time.Minute)
							l.handOver()
							l = w.run()
						}
						w.published(2 * time.Minute)
						for range 5 * 60 {
							w.sleep(time.Minute)
							w.wantGood()
						}
						if _, err := l.end(); err != nil {
							t.Errorf("the end: %v", err)
						}
						live := w.server.Live()
						if len(live) != 1 || live[0].ID != theirs.ID || !live[0].Expiry.Equal(expiry) {
							t.Errorf("live: %+v; theirs is %d until %v", live, theirs.ID, expiry)
						}
					})
				})
			}
		}
	}
}

// byChance stands for random pauses.
const byChance = -1

// TestWhereAnOutageEnds ends one at many places around a key's expiry. The app is refused from the expiry until the end
// of the outage, and for a few seconds more at most.
func TestWhereAnOutageEnds(t *testing.T) {
	slowly := outage{"503, and slow after that", outages()[2].begin, func(s *balenatest.Server) {
		s.Heal()
		s.Fail(balenatest.Fault{Pass: true, Delay: 1500 * time.Millisecond, For: time.Minute})
	}}
	for _, o := range append(outages(), slowly) {
		for _, after := range []time.Duration{-10 * time.Minute, -time.Minute, -20 * time.Second, -inTime, -2 * time.Second, 0,
			2 * time.Second, 10 * time.Second, time.Minute} {
			for _, luck := range []float64{0.2, byChance} {
				restart := luck == byChance
				if o.name == slowly.name && (restart || after > -inTime) {
					continue // it takes a session and several requests then, and there is no time for that
				}
				t.Run(fmt.Sprintf("%s, %v after the expiry, luck %v, restart %v", o.name, after, luck, restart), func(t *testing.T) {
					inWorld(t, balenatest.Options{}, func(w *world) {
						w.times.MaxTTL = 0
						if !restart {
							w.random = func() float64 { return luck } // pauses that are always the same miss the same instants
						}
						l := w.run()
						w.published(time.Second)
						w.sleep(10 * time.Minute)
						expiry := w.server.Live()[0].Expiry
						end := expiry.Add(after)
						o.begin(w.server, end)
						w.sleep(40 * time.Minute)
						if restart {
							l.handOver()
							l = w.run()
						}
						w.sleep(time.Until(end))
						o.end(w.server)
						refused := time.Duration(0)
						for began := time.Now(); time.Since(began) < 12*time.Minute; w.sleep(100 * time.Millisecond) {
							if !w.server.Accepts(w.read()) {
								refused += 100 * time.Millisecond
							}
						}
						if limit := w.patienceAfter(after, o.name); refused > limit {
							t.Errorf("refused for %v after the outage, not at most %v", refused, limit)
						}
						l.endWell()
						w.server.Forget() // several causes in one life
					})
				})
			}
		}
	}
}

// patienceAfter is for how long an app may be refused after an outage that ended so long after its key's expiry: not at
// all if that was in time, a few seconds around the expiry, and then for as long as it has been refused, or a request
// that got no answer takes.
func (w *world) patienceAfter(after time.Duration, outage string) time.Duration {
	limit := time.Duration(0)
	if after > -inTime {
		limit = 3*time.Second + max(0, after)
	}
	if outage == "silence" && after >= 0 {
		limit += 20 * time.Second
	}
	if after >= 10*time.Second {
		limit = max(limit, 90*time.Second) // from here on the request budget counts
	}
	return limit
}

// TestAKeyTakenOutOfTheConfiguration drains its journal with a server that fails in some way, until it does not any more,
// or until the stop.
func TestAKeyTakenOutOfTheConfiguration(t *testing.T) {
	drain := func(a *agent.Agent, stop, kill context.Context) error { return a.Drain(stop, kill) }
	for name, fault := range map[string]balenatest.Fault{
		"no failure": {Kind: "none"}, "503": {Kind: "revoke", Status: 503}, "503 with a wait": {Kind: "revoke", Status: 503,
			Header: http.Header{"Retry-After": {"600"}}},
		"429": {Status: 429, Header: http.Header{"Retry-After": {"120"}}}, "reset": {Kind: "revoke"}, "no login": {Kind: "login",
			Status: 503}, "it does nothing": {Kind: "revoke", Hollow: true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				l := w.run()
				w.published(time.Second)
				l.handOver()
				w.server.Forget()
				w.server.Fail(fault)
				l = w.begin(drain)
				w.sleep(5 * time.Minute)
				if w.read() != "" {
					t.Error("its file is left")
				}
				if name == "no failure" {
					if err := l.wait(); err != nil || w.recorded() != 0 {
						t.Errorf("%v, %d records", err, w.recorded())
					}
					w.wantLive(0)
					return
				}
				if n := w.server.Count("login"); n > 3 && name != "no login" {
					t.Errorf("%d logins in five minutes", n)
				}
				w.wantLive(1)
				_, err := l.end()
				if left, ok := errors.AsType[*agent.LeftError](err); !ok || len(left.Keys) != 1 || w.recorded() != 1 {
					t.Errorf("the end: %v, %d records", err, w.recorded())
				}
				l = w.begin(drain)
				w.sleep(time.Minute)
				w.server.Heal()
				w.sleep(12 * time.Minute)
				if err := l.wait(); err != nil {
					t.Error(err)
				}
				w.wantLive(0)
			})
		})
	}
}
