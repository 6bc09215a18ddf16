package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/tally"
	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/turn"
)

// memoryStore is an agent.Store in memory.
type memoryStore struct {
	mu     sync.Mutex
	data   []byte
	onDisk bool // it keeps no secrets
}

func (m *memoryStore) Load(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.data, nil
}

func (m *memoryStore) Save(_ context.Context, encode func(bool) ([]byte, error)) error {
	data, err := encode(!m.onDisk)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data = data
	return nil
}

func (m *memoryStore) Displaced() bool                          { return false }
func (m *memoryStore) SetAside(context.Context) (string, error) { return "", errors.New("damaged") }
func (m *memoryStore) Sweep() error                             { return nil }

// household is one process that keeps many keys of one account, and what outlives it.
type household struct {
	w        *world
	stores   []*memoryStore
	files    []*memoryFile
	account  *balena.Account
	agents   []*agent.Agent
	stopAll  context.CancelCauseFunc
	killAll  context.CancelFunc
	ended    chan error
	requests []balenatest.Request // those of earlier hours
	logs     *lockedBuffer        // nil: nobody reads them
	workers  *turn.Workers        // for files; nil: each agent does its own
	open     bool                 // the account's budget is out of the way
	rate     int                  // requests a minute; 0: the default
	ownNames bool                 // the keys' names begin differently, so that nothing can be done for several
}

func (w *world) household(n int) *household {
	h := &household{w: w}
	for range n {
		h.stores, h.files = append(h.stores, &memoryStore{}), append(h.files, &memoryFile{})
	}
	return h
}

// start starts the process.
func (h *household) start() {
	w, n := h.w, len(h.stores)
	client, err := balena.NewClient(balena.Config{URL: w.url, Dial: w.dial})
	if err != nil {
		w.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	h.account, err = balena.NewAccount(client, balena.AccountConfig{Credentials: w.creds, Log: log, Refusals: w.refusals, Keys: n,
		PerMinute: h.rate})
	if err != nil {
		w.t.Fatal(err)
	}
	if h.open {
		h.account.Turns().Open()
	}
	stop, end := context.WithCancelCause(context.Background())
	kill, abandon := context.WithCancel(context.Background())
	h.stopAll, h.killAll, h.ended, h.agents = end, abandon, make(chan error, n), nil
	keepers := make([]balena.Keeper, n)
	var census *balena.Census
	crowd := agent.Crowd{Files: h.workers, Turns: h.account.Turns(), Together: true, Epoch: time.Now(), Spread: balena.Worthwhile(n)}
	if balena.Worthwhile(n) && !h.ownNames {
		census = balena.NewCensus(h.account, w.times.Check, keepers)
		crowd.List = census.Ask
	}
	for i := range n {
		budget, prefix := agent.NewBudget(w.times, false), "test"
		if h.ownNames {
			prefix = fmt.Sprint("test", i)
		}
		a := agent.New(agent.Config{
			Issuer:          balena.NewIssuer(h.account, balena.IssuerConfig{Prefix: prefix, Kind: key.User, Gate: budget}),
			Publisher:       h.files[i],
			Store:           h.stores[i],
			Budget:          budget,
			Times:           w.times,
			URL:             w.url,
			Login:           w.login,
			Kind:            key.User,
			InitTimeout:     w.initTime,
			ShutdownTimeout: w.shutdown,
			Crowd:           crowd,
			Log:             h.logOf(i),
		})
		h.agents, keepers[i] = append(h.agents, a), a
	}
	if census != nil {
		go census.Run(stop)
	}
	for _, a := range h.agents {
		go func() { h.ended <- a.Run(stop, kill) }()
	}
	w.t.Cleanup(func() { end(nil); abandon(); client.Close() })
}

// restarted lets all have a key at once, and hands these to a process that may send so many requests a minute.
func (h *household) restarted(rate int) {
	h.w.t.Helper()
	h.open = true
	h.start()
	h.until(10*time.Minute, "a token", h.good)
	h.mustEnd(agent.ErrHandOver)
	h.open, h.rate = false, rate
	h.start()
}

// logOf is where agent i writes.
func (h *household) logOf(i int) *slog.Logger {
	if h.logs == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(h.logs, &slog.HandlerOptions{Level: slog.LevelDebug})).With("agent", i)
}

// end ends the process for that reason, and returns what its agents say.
func (h *household) end(why error) (errs []error) {
	h.stopAll(why)
	for range h.agents {
		if err := <-h.ended; err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (h *household) mustEnd(why error) {
	h.w.t.Helper()
	if errs := h.end(why); len(errs) > 0 {
		h.w.t.Errorf("%d agents did not end well: %v", len(errs), errs[0])
	}
}

// good counts the apps whose token the server accepts.
func (h *household) good() int {
	n := 0
	for _, f := range h.files {
		if h.w.server.Accepts(f.read()) {
			n++
		}
	}
	return n
}

func (h *household) ready() int {
	n := 0
	for _, a := range h.agents {
		if ok, _ := a.Ready(); ok {
			n++
		}
	}
	return n
}

// until waits until count says all of them, and returns how long that took.
func (h *household) until(within time.Duration, what string, count func() int) time.Duration {
	h.w.t.Helper()
	for waited := time.Duration(0); waited < within; waited += time.Second {
		if count() == len(h.stores) {
			return waited
		}
		h.w.sleep(time.Second)
	}
	h.w.t.Fatalf("%s after %v: only %d of %d", what, within, count(), len(h.stores))
	return 0
}

// live lets time pass, with a look at every app that has a token every so often: none is refused.
func (h *household) live(d, every time.Duration) {
	h.w.t.Helper()
	for ; d > 0; d -= every {
		h.w.sleep(min(d, every))
		if bad := h.refused(); bad > 0 {
			tally.Add("bad reads", bad)
			h.w.t.Fatalf("%d apps have a token that the server refuses", bad)
		}
	}
}

// refused counts the apps that have a token which the server refuses.
func (h *household) refused() int {
	bad := 0
	for _, f := range h.files {
		if token := f.read(); token != "" && !h.w.server.Accepts(token) {
			bad++
		}
	}
	return bad
}

// take returns the requests since the last call, and how many fell into the busiest minute.
func (h *household) take() (all int, busiest int, kinds map[string]int) {
	seen := h.w.server.Requests()
	h.w.server.Forget()
	h.requests = append(h.requests[max(0, len(h.requests)-2000):], seen...)
	kinds = map[string]int{}
	for _, r := range seen {
		kinds[r.Kind]++
	}
	for i, j := 0, 0; j < len(h.requests); j++ {
		for h.requests[j].At.Sub(h.requests[i].At) >= time.Minute {
			i++
		}
		busiest = max(busiest, j-i+1)
	}
	return len(seen), busiest, kinds
}

// sizes are how many keys a household has in these tests: what must hold for 10,000 holds for fewer.
func sizes() int {
	switch {
	case *long:
		return 10000
	case raceEnabled:
		return 150
	}
	return 1000
}

// pro is what is allowed for ten thousand keys, for n of them: a share of it, and what does not depend on their number.
func pro(n, forAll, fixed int) int { return fixed + (forAll-fixed)*n/10000 }

func TestManyKeysOfOneAccount(t *testing.T) {
	for _, maxTTL := range []time.Duration{0, 24 * time.Hour} {
		t.Run(fmt.Sprint("replaced after ", maxTTL), func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				w.times.MaxTTL = maxTTL
				n := sizes()
				h := w.household(n)
				h.start()
				took := h.until(75*time.Minute*time.Duration(n)/10000+time.Minute, "a token", h.good)
				requests, busiest, kinds := h.take()
				w.t.Logf("%d first mints: %v, %d requests, %d in the busiest minute, %v", n, took, requests, busiest, kinds)
				if busiest > 450 {
					t.Errorf("%d requests in a minute", busiest)
				}
				hours, most := 72, pro(n, 1800, 250)
				if maxTTL == 0 {
					hours, most = 24, pro(n, 600, 300)
				}
				var all []int
				for hour := range hours {
					h.live(time.Hour, 10*time.Minute)
					requests, busiest, kinds = h.take()
					all = append(all, requests)
					if hour > 0 && (maxTTL == 0 || hour >= 24) && requests > most || busiest > 450 {
						t.Errorf("hour %d: %d requests (at most %d), %d in the busiest minute, %v", hour, requests, most, busiest, kinds)
					}
				}
				w.t.Logf("requests in each hour: %v; in the last one %v", all, kinds)
				for i, a := range h.agents {
					if s := a.Status(); s.Counts.Extensions < int64(hours) || !s.Ready || maxTTL > 0 && s.Counts.Rotations < 2 {
						t.Fatalf("agent %d: %+v", i, s)
					}
				}
				h.mustEnd(agent.ErrHandOver)
				h.take()
				h.start()
				took = h.until(2*time.Minute, "ready again", h.ready)
				requests, _, kinds = h.take()
				w.t.Logf("restart: all ready after %v, %d requests, %v", took, requests, kinds)
				if requests > pro(n, 150, 25) || kinds["mint"] > 0 && maxTTL == 0 {
					t.Errorf("a restart took %d requests: %v", requests, kinds)
				}
				h.take()
				began := time.Now()
				h.mustEnd(nil)
				requests, _, kinds = h.take()
				w.t.Logf("stop: %v, %d requests, %v", time.Since(began), requests, kinds)
				if requests > pro(n, 200, 20) {
					t.Errorf("the stop took %d requests: %v", requests, kinds)
				}
				w.wantLive(0)
			})
		})
	}
}

// TestDeletedKeysOfMany are found by the next list, and replaced; the others are not disturbed.
func TestDeletedKeysOfMany(t *testing.T) {
	for name, share := range map[string]int{"three": 3, "half": 50} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				const n = 100
				h := w.household(n)
				h.start()
				h.until(2*time.Minute, "a token", h.good)
				h.live(17*time.Minute, time.Minute)
				for _, k := range w.server.Live()[:share] {
					w.server.DeleteKey(k.ID)
				}
				took := h.until(w.times.Check+time.Minute, "good again", h.good)
				h.live(time.Hour, time.Minute)
				t.Logf("%d of %d keys deleted: all good again after %v", share, n, took)
				for _, a := range h.agents {
					if c := a.Status().Counts; c.Mints > 2 {
						t.Errorf("%d mints for one key", c.Mints)
					}
				}
				if mints := w.server.Count("mint"); mints != n+share {
					t.Errorf("%d mints, %d keys and %d deleted", mints, n, share)
				}
				w.server.Forget()
				h.mustEnd(nil)
				w.wantLive(0)
				w.server.Forget()
			})
		})
	}
}

// TestAnOutageOfTheAccount: while the server is away one request probes for all, and afterwards all are good at once.
func TestAnOutageOfTheAccount(t *testing.T) {
	for name, fail := range map[string]struct{ begin, end func(s *balenatest.Server) }{
		"refused":  {func(s *balenatest.Server) { s.SetRestarting(true) }, func(s *balenatest.Server) { s.SetRestarting(false) }},
		"503":      {func(s *balenatest.Server) { s.Fail(balenatest.Fault{Status: 503}) }, (*balenatest.Server).Heal},
		"database": {func(s *balenatest.Server) { s.SetDown(true) }, func(s *balenatest.Server) { s.SetDown(false) }},
	} {
		for _, length := range []time.Duration{20 * time.Minute, 40 * time.Minute} {
			t.Run(fmt.Sprint(name, " for ", length), func(t *testing.T) {
				inWorld(t, balenatest.Options{}, func(w *world) {
					n := sizes()
					h := w.household(n)
					h.open = true
					h.start()
					h.until(5*time.Minute, "a token", h.good)
					h.live(2*time.Hour, 10*time.Minute)
					h.mustEnd(agent.ErrHandOver)
					h.open = false
					h.start()
					h.live(time.Hour+7*time.Minute, time.Minute)
					h.take()
					h.requests = nil
					fail.begin(w.server)
					if length == 20*time.Minute {
						h.live(length, 30*time.Second)
					} else {
						w.sleep(length)
					}
					requests, _, kinds := h.take()
					probes := h.probes()
					fail.end(w.server)
					bad := h.refused()
					took := h.until(30*time.Second, "good again", h.good)
					w.sleep(2 * time.Minute)
					after, busiest, afterwards := h.take()
					w.t.Logf("%d requests while it lasted (%v), %d in the busiest 10 min; %d apps were refused at its end",
						requests, kinds, probes, bad)
					w.t.Logf("all good after %v; %d requests in 2 min (%v), %d in the busiest minute", took, after, afterwards, busiest)
					if probes > 60 || busiest > 450 {
						t.Errorf("%d requests in 10 min of the outage, %d in the busiest minute after it", probes, busiest)
					}
					h.mustEnd(nil)
					w.wantLive(0)
					w.server.Forget() // thousands of agents' requests are no one agent's pace
				})
			})
		}
	}
}

// probes is the number of requests in the busiest ten minutes, as far as they were taken.
func (h *household) probes() (most int) {
	seen := slices.Clone(h.requests)
	for i, j := 0, 0; j < len(seen); j++ {
		for seen[j].At.Sub(seen[i].At) >= 10*time.Minute {
			i++
		}
		if seen[j].Status != 200 {
			most = max(most, j-i+1)
		}
	}
	return most
}
