package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/tally"
	"github.com/balena-injector/injector/key"
)

// crowd is many agents of one account, each with its own machine.
type crowd struct {
	w     *world
	homes []*world
	lives []*life
}

func (w *world) crowd(n int) *crowd {
	root, err := os.MkdirTemp("/dev/shm", "injector-many-")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = os.RemoveAll(root) })
	c := &crowd{w: w, lives: make([]*life, n)}
	for i := range n {
		home := *w
		home.dir, home.client = filepath.Join(root, fmt.Sprint(i)), fmt.Sprint("agent-", i)
		home.crowded, home.refusals = &memoryFile{}, &memory{}
		if err := os.Mkdir(home.dir, 0o700); err != nil {
			w.t.Fatal(err)
		}
		c.homes = append(c.homes, &home)
	}
	return c
}

// memoryFile is an agent.Publisher of one output that is not a file: descriptors are few.
type memoryFile struct {
	mu     sync.Mutex
	secret string
}

func (m *memoryFile) read() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.secret
}

func (m *memoryFile) write(secret string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.secret = secret
	return nil
}

func (m *memoryFile) Publish(_ context.Context, p key.Publication) error {
	return m.write(p.Key.Secret.Reveal())
}
func (m *memoryFile) Inspect(_ context.Context, p key.Publication) error {
	if m.read() != p.Key.Secret.Reveal() {
		return errors.New("another secret")
	}
	return nil
}
func (m *memoryFile) Remove(context.Context) error                    { return m.write("") }
func (m *memoryFile) Prove(context.Context) error                     { return nil }
func (m *memoryFile) Describe(context.Context, key.Publication) error { return nil }
func (m *memoryFile) Sweep(context.Context) error                     { return nil }

// start starts all of them at once.
func (c *crowd) start() {
	for i, home := range c.homes {
		c.lives[i] = home.run()
	}
}

// stop ends all of them at once, for that reason.
func (c *crowd) stop(why error) {
	for _, l := range c.lives {
		l.stop(why)
	}
	for _, l := range c.lives {
		if err := l.wait(); err != nil {
			c.w.t.Errorf("the end: %v", err)
		}
	}
}

// good counts the apps whose token the server accepts.
func (c *crowd) good() int {
	n := 0
	for _, home := range c.homes {
		if c.w.server.Accepts(home.crowded.read()) {
			n++
		}
	}
	return n
}

func (c *crowd) ready() int {
	n := 0
	for _, l := range c.lives {
		if ok, _ := l.agent.Ready(); ok {
			n++
		}
	}
	return n
}

// until waits until count says all of them, and returns how long that took.
func (c *crowd) until(within time.Duration, what string, count func() int) time.Duration {
	c.w.t.Helper()
	for waited := time.Duration(0); waited < within; waited += 5 * time.Second {
		if count() == len(c.homes) {
			return waited
		}
		c.w.sleep(5 * time.Second)
	}
	c.w.t.Fatalf("%s after %v: only %d of %d", what, within, count(), len(c.homes))
	return 0
}

// live lets time pass, with a look at every app every two minutes: no token is refused.
func (c *crowd) live(d time.Duration) {
	c.w.t.Helper()
	for ; d > 0; d -= 2 * time.Minute {
		c.w.sleep(min(d, 2*time.Minute))
		n := c.good()
		tally.Add("reads by apps", len(c.homes))
		tally.Add("bad reads", len(c.homes)-n)
		if n != len(c.homes) {
			c.w.t.Fatalf("%d apps have a token that the server refuses", len(c.homes)-n)
		}
	}
}

// busiest returns how many of the requests that are counted fall into the busiest 10 s.
func busiest(seen []balenatest.Request, counts func(balenatest.Request) bool) (most, all int) {
	var times []time.Time
	for _, r := range seen {
		if counts(r) {
			times = append(times, r.At)
		}
	}
	for i, j := 0, 0; j < len(times); j++ {
		for times[j].Sub(times[i]) >= 10*time.Second {
			i++
		}
		most = max(most, j-i+1)
	}
	return most, len(times)
}

// TestManyAgents lets a crowd start at once, restart at once, and lose the server for an hour. The
// server answers 2 % of them a second, and 429 to the others.
func TestManyAgents(t *testing.T) {
	n := 1000
	switch {
	case raceEnabled: // it knows some 8,000 goroutines at most, and is slow
		n = 100
	case *long:
		n = 10000
	}
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.times = agent.Times{TTL: 4 * time.Hour, MaxTTL: 24 * time.Hour, Overlap: time.Minute, Check: 15 * time.Minute}
		w.server.SetLimit(n/5, 10*time.Second)
		c := w.crowd(n)
		tally.Add("agents in one world", n)
		c.start()
		w.t.Logf("%d cold starts at once: all have a token after %v", n, c.until(15*time.Minute, "a token", c.good))
		c.live(30 * time.Minute)

		c.stop(agent.ErrHandOver)
		c.start()
		w.t.Logf("%d restarts at once: all are ready after %v", n, c.until(15*time.Minute, "ready again", c.ready))
		if mints := len(w.server.All()); mints != n {
			t.Errorf("%d keys for %d agents", mints, n)
		}

		c.live(time.Hour + 10*time.Minute)
		w.server.SetRestarting(true)
		c.live(time.Hour)
		w.server.SetRestarting(false)
		w.server.Forget()
		c.live(time.Hour)
		seen := w.server.Requests()
		most, all := busiest(seen, func(balenatest.Request) bool { return true })
		w.t.Logf("after an hour's outage: %d requests in an hour, %d in the busiest 10 s, %.1f %%", all, most,
			100*float64(most)/float64(all))
		share := 20
		if n < 1000 {
			share = 10 // the requests of three agents in a hurry are a twentieth of all, and chance brings three together
		}
		if most*share > all {
			t.Errorf("%d of %d requests within 10 s", most, all)
		}
		most, all = busiest(seen, func(r balenatest.Request) bool { return r.Kind == "extend" && r.Status == 200 })
		w.t.Logf("%d extensions, %d in the busiest 10 s, %.1f %%", all, most, 100*float64(most)/float64(all))
		if all < n || n >= 1000 && most*20 > all { // of fewer than that, chance brings more together
			t.Errorf("%d of %d extensions within 10 s", most, all)
		}
		for i, l := range c.lives {
			if s := l.agent.Status(); s.Counts.Extensions == 0 || time.Until(s.Key.Expiry) < w.times.TTL/3 {
				t.Errorf("agent %d starved: %+v", i, s.Schedule)
			}
		}
		w.server.SetLimit(0, 0)
		w.server.Forget() // many agents' requests are no one agent's pace
		c.stop(nil)
		w.wantLive(0)
		w.server.Forget()
	})
}

// TestAThousandAgentsSpreadOut lets a crowd start at once and live on undisturbed: its extensions do not stay together.
func TestAThousandAgentsSpreadOut(t *testing.T) {
	n := 1000
	if raceEnabled {
		n = 100
	}
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.times = agent.Times{TTL: time.Hour, MaxTTL: 24 * time.Hour, Overlap: time.Minute, Check: 15 * time.Minute}
		c := w.crowd(n)
		tally.Add("agents in one world", n)
		c.start()
		c.until(time.Minute, "a token", c.good)
		c.live(2 * time.Hour)
		most, all := busiest(w.server.Requests(), func(r balenatest.Request) bool { return r.Kind == "extend" })
		w.t.Logf("%d extensions in two hours, %d in the busiest 10 s, %.1f %%", all, most, 100*float64(most)/float64(all))
		if all < 2*n || most*20 > all {
			t.Errorf("%d of %d extensions within 10 s", most, all)
		}
		w.server.Forget() // many agents' requests are no one agent's pace
		c.stop(nil)
		w.wantLive(0)
		w.server.Forget()
	})
}
