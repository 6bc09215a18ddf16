package agent_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/turn"
)

// These tests have more to do than the account's rate allows, or a server that misleads. Each was seen to fail.

// crowded is how many keys these tests have, and at which rate: what ten thousand have at 300 a minute. Lists and batches
// take as many requests for few keys.
func crowded() (keys, rate int) {
	if raceEnabled {
		return 340, 15
	}
	return 1000, 30
}

// innocent counts the apps that are refused though nobody deleted their key.
func (h *household) innocent(deleted map[string]bool) int {
	n := 0
	for _, f := range h.files {
		if token := f.read(); token != "" && !deleted[token] && !h.w.server.Accepts(token) {
			n++
		}
	}
	return n
}

// TestTheOthersOfDeletedKeys are extended in time, though those that were deleted take all requests for an hour, and these
// are replaced in the end.
func TestTheOthersOfDeletedKeys(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		n, rate := crowded()
		w.times = agent.Times{TTL: time.Hour, Overlap: time.Minute, Check: 5 * time.Minute}
		h := w.household(n)
		h.restarted(rate)
		h.live(2*time.Hour, 10*time.Minute)
		deleted := map[string]bool{}
		for i, k := range w.server.Live() {
			if i%5 == 0 {
				deleted[k.Secret] = true
				w.server.DeleteKey(k.ID)
			}
		}
		h.take()
		for minutes := range 3 * 60 {
			w.sleep(time.Minute)
			if bad := h.innocent(deleted); bad > 0 {
				t.Fatalf("after %d min %d apps are refused whose keys nobody deleted", minutes, bad)
			}
			for i, a := range h.agents {
				if !a.Alive() {
					t.Fatalf("after %d min agent %d counts as stuck", minutes, i)
				}
			}
			h.take()
		}
		if bad := h.refused(); bad > 0 {
			t.Errorf("%d of %d deleted keys were not replaced within three hours", bad, len(deleted))
		}
		h.mustEnd(nil)
		w.wantLive(0)
		w.server.Forget()
	})
}

// TestReplacementsThatWaitForTheirTurn are due before the rate allows them: the keys are extended meanwhile.
func TestReplacementsThatWaitForTheirTurn(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.times = agent.Times{TTL: time.Hour, MaxTTL: 2 * time.Hour, Overlap: time.Minute, Check: 5 * time.Minute}
		n, rate := crowded()
		h := w.household(n / 3)
		h.rate = rate * 2 / 3
		h.start()
		h.live(8*time.Hour, time.Minute)
		h.mustEnd(nil)
		w.wantLive(0)
		w.server.Forget()
	})
}

// TestAKeyThatIsMissingWhileOthersStart is asked for before others get their first key, and replaced.
func TestAKeyThatIsMissingWhileOthersStart(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		n, rate := crowded()
		h := w.household(n)
		h.rate = rate
		h.start()
		w.sleep(7 * time.Minute)
		if h.good() < 10 {
			t.Fatalf("%d keys after seven minutes", h.good())
		}
		w.server.DeleteKey(w.server.Live()[0].ID)
		w.sleep(w.times.Check + time.Minute)
		if bad := h.refused(); bad > 0 {
			t.Errorf("%d apps are refused a check interval and a minute after a key was deleted", bad)
		}
		if h.good() == n {
			t.Error("all have a key, so that nothing was shown")
		}
		h.mustEnd(nil)
		w.wantLive(0)
		w.server.Forget()
	})
}

// TestKeysWithNamesOfTheirOwn cannot share requests, and keep the rate all the same: when all are due at once, too.
func TestKeysWithNamesOfTheirOwn(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.times = agent.Times{TTL: time.Hour, Overlap: time.Minute, Check: 15 * time.Minute}
		h := w.household(300)
		h.ownNames = true
		h.restarted(100)
		h.until(10*time.Minute, "ready", h.ready)
		w.server.SetRestarting(true)
		w.sleep(45 * time.Minute)
		h.take()
		h.requests = nil
		w.server.SetRestarting(false)
		w.sleep(2 * time.Minute)
		if _, busiest, kinds := h.take(); busiest > 150 {
			t.Errorf("%d requests in a minute at a rate of 100: %v", busiest, kinds)
		}
		h.until(20*time.Minute, "good again", h.good)
		h.mustEnd(nil)
		w.wantLive(0)
		w.server.Forget()
	})
}

// TestAPageInPlaceOfAllAnswers is an outage, though a gateway says 200: one request asks for all keys whether it is over.
func TestAPageInPlaceOfAllAnswers(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		h := w.household(400)
		h.start()
		h.until(5*time.Minute, "a token", h.good)
		h.live(time.Hour, 10*time.Minute)
		h.take()
		w.server.Fail(balenatest.Fault{Status: 200, Header: http.Header{"Content-Type": {"text/html"}}, Body: "<html>back soon</html>"})
		w.sleep(15 * time.Minute)
		if all, _, kinds := h.take(); all > 200 {
			t.Errorf("%d requests in 15 min of an outage: %v", all, kinds)
		}
		if h.account.Turns().Outage() == nil {
			t.Error("it does not count as an outage")
		}
		w.server.Heal()
		h.until(2*time.Minute, "good again", h.good)
		h.mustEnd(nil)
		w.wantLive(0)
		w.server.Forget()
	})
}

// TestMintsThatHalfAListShows have lost their answers, and the process its secrets. A list of names shows the half: the
// others are asked for one by one, and none is forgotten.
func TestMintsThatHalfAListShows(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		h := w.household(20)
		for _, s := range h.stores {
			s.onDisk = true
		}
		w.server.Fail(balenatest.Fault{Kind: "mint", After: true})
		h.start()
		w.sleep(10 * time.Second)
		h.end(agent.ErrHandOver)
		w.server.Heal()
		if lost := len(w.server.Live()); lost < 4 { // an outage was noticed before all had sent theirs, perhaps
			t.Errorf("only %d mints lost their answer", lost)
		}
		w.server.Fail(balenatest.Fault{Kind: "find", Half: true})
		h.start()
		h.until(10*time.Minute, "a token", h.good)
		w.sleep(2 * time.Minute)
		known := 0
		for _, a := range h.agents {
			known += a.Status().Live
		}
		if live := len(w.server.Live()); live > known {
			t.Errorf("of %d live keys %d are known", live, known)
		}
		w.server.Heal()
		h.mustEnd(nil)
		w.wantLive(0)
		w.server.Forget()
	})
}

// TestListsThatFail are asked for ever more seldom.
func TestListsThatFail(t *testing.T) {
	for _, f := range []balenatest.Fault{{Kind: "list", Unfiltered: true}, {Kind: "list", Status: 400}, {Kind: "list", Status: 503}} {
		t.Run(fmt.Sprint(f.Status, f.Unfiltered), func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				w.server.AddKey(w.server.DefaultUser(), "somebody", time.Now().Add(1000*time.Hour))
				h := w.household(10)
				h.start()
				h.until(5*time.Minute, "a token", h.good)
				w.server.Fail(f)
				h.live(2*time.Hour, 10*time.Minute)
				h.take()
				h.live(time.Hour, 10*time.Minute)
				if _, _, kinds := h.take(); kinds["list"] > 30 {
					t.Errorf("%d lists in an hour that can say nothing", kinds["list"])
				}
				w.server.Heal()
				h.mustEnd(nil)
				w.wantLive(1) // somebody's
				w.server.Forget()
			})
		})
	}
}

// TestABatchThatWaitsHoldsNobodyUp has replaced keys that are to be revoked together, while others, which are more urgent, take
// all turns: the agents look after their outputs meanwhile.
func TestABatchThatWaitsHoldsNobodyUp(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.times = agent.Times{TTL: time.Hour, MaxTTL: 2 * time.Hour, Overlap: 2 * time.Minute, Check: 5 * time.Minute}
		h := w.household(9)
		h.start()
		h.until(10*time.Minute, "a token", h.good)
		first := map[string]bool{}
		for _, f := range h.files {
			first[f.read()] = true
		}
		for replaced := 0; replaced < 2; { // in the same minute, so that the old ones go together
			w.sleep(time.Minute)
			before := len(first)
			for _, f := range h.files {
				first[f.read()] = true
			}
			replaced = len(first) - before
		}
		q := h.account.Turns()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		for range 100 {
			go func() {
				for ctx.Err() == nil {
					if t, err := q.Wait(ctx, turn.Rescue, 5); err == nil {
						for range 5 {
							q.Sent(turn.With(ctx, t))
						}
						time.Sleep(time.Second)
						t.Done()
					}
				}
			}()
		}
		w.sleep(10 * time.Minute)
		for _, f := range h.files {
			if err := f.write("damaged"); err != nil {
				t.Fatal(err)
			}
		}
		w.sleep(2 * time.Minute)
		for i, f := range h.files {
			if f.read() == "damaged" {
				t.Errorf("agent %d has not written its output again after two minutes", i)
			}
		}
		cancel()
		w.sleep(2 * time.Second)
		h.mustEnd(nil)
		w.wantLive(0)
		w.server.Forget()
	})
}
