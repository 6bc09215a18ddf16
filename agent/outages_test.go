package agent_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/tally"
)

// inTime is how long before a key's expiry an outage must have ended for the app not to notice it.
const inTime = 5 * time.Second

// outage is a way in which a server is away until some time, without a word about how long.
type outage struct {
	name  string
	begin func(s *balenatest.Server, until time.Time)
	end   func(s *balenatest.Server)
}

func outages() []outage {
	heal := func(s *balenatest.Server) { s.Heal() }
	return []outage{
		{"reset", func(s *balenatest.Server, _ time.Time) { s.SetRestarting(true) }, func(s *balenatest.Server) { s.SetRestarting(false) }},
		{"refused", func(s *balenatest.Server, _ time.Time) { s.SetRefusing(true) }, func(s *balenatest.Server) { s.SetRefusing(false) }},
		{"503", func(s *balenatest.Server, until time.Time) { s.Fail(balenatest.Fault{Status: 503, Until: until}) }, heal},
		{"no database", func(s *balenatest.Server, _ time.Time) { s.SetDown(true) }, func(s *balenatest.Server) { s.SetDown(false) }},
		{"silence", func(s *balenatest.Server, until time.Time) { s.Fail(balenatest.Fault{Hang: true, Until: until}) }, heal},
	}
}

// TestOutagesThatEndInTime has a crowd and outages of random length. Each ends 5 s before the expiry of some agent's
// key. No app whose key expires then or later is refused, and no agent sends more than 40 requests in ten minutes; with
// a TTL of two minutes the schedule itself asks for more.
func TestOutagesThatEndInTime(t *testing.T) {
	n := 200
	switch {
	case raceEnabled:
		n = 40
	case *long:
		n = 1000
	}
	for name, times := range map[string]agent.Times{
		"an hour":     {TTL: time.Hour, MaxTTL: 24 * time.Hour, Overlap: time.Minute, Check: 5 * time.Minute},
		"two minutes": {TTL: 2 * time.Minute, MaxTTL: 24 * time.Hour, Overlap: 20 * time.Second, Check: 5 * time.Minute},
	} {
		for _, o := range outages() {
			t.Run(name+", "+o.name, func(t *testing.T) {
				inWorld(t, balenatest.Options{}, func(w *world) {
					w.times = times
					c := w.crowd(n)
					tally.Add("agents in one world", n)
					c.start()
					c.until(time.Minute, "a token", c.good)
					late := 0
					for range 2 {
						w.sleep(times.TTL + time.Duration(rand.Int64N(int64(times.TTL))))
						late += c.outage(o)
					}
					t.Logf("%d keys expired within 10 s after an outage could have cost them", late)
					if times.TTL >= time.Hour {
						c.checkPaces()
					}
					w.server.Forget()
					c.stop(nil)
					w.wantLive(0)
					w.server.Forget()
				})
			})
		}
	}
}

// outage takes the server away until 5 s before the expiry of one of the keys, and looks at all apps whose key expires
// then or later. It returns how many of those expire within the next ten seconds.
func (c *crowd) outage(o outage) (near int) {
	c.w.t.Helper()
	expiry := c.expiries()
	sorted := make([]time.Time, 0, len(c.homes))
	for _, home := range c.homes {
		sorted = append(sorted, expiry[home.crowded.read()])
	}
	slices.SortFunc(sorted, time.Time.Compare)
	end := sorted[rand.IntN(len(sorted)/2)+len(sorted)/4].Add(-inTime)
	o.begin(c.w.server, end)
	c.w.sleep(time.Until(end))
	o.end(c.w.server)
	type app struct {
		home *world
		at   time.Time
	}
	var apps []app
	expiry = c.expiries()
	for _, home := range c.homes {
		if at := expiry[home.crowded.read()]; !at.Before(end.Add(inTime)) {
			apps = append(apps, app{home, at})
			if at.Before(end.Add(inTime + 10*time.Second)) {
				near++
			}
		}
	}
	slices.SortFunc(apps, func(a, b app) int { return a.at.Compare(b.at) })
	for _, a := range apps {
		if wait := time.Until(a.at); wait > -time.Millisecond {
			c.w.sleep(max(0, wait) + time.Millisecond) // right after the old expiry
		}
		tally.Add("reads by apps", 1)
		if !c.w.server.Accepts(a.home.crowded.read()) {
			tally.Add("bad reads", 1)
			c.w.t.Errorf("%s is refused; its key expired %v after the outage's end", a.home.client, a.at.Sub(end))
		}
	}
	// With a TTL of two minutes an agent can have used up its requests: the four that a good key takes come in two minutes,
	// after which a failing step may rest for another three quarters of one.
	c.until(4*time.Minute, "recovered", c.good)
	return near
}

// expiries maps the secrets of all keys to when they expire.
func (c *crowd) expiries() map[string]time.Time {
	all := map[string]time.Time{}
	for _, k := range c.w.server.All() {
		all[k.Secret] = k.Expiry
	}
	return all
}

// checkPaces is checkPace for each agent of a crowd.
func (c *crowd) checkPaces() {
	c.w.t.Helper()
	byClient := map[string][]balenatest.Request{}
	for _, r := range c.w.server.Requests() {
		byClient[r.Client] = append(byClient[r.Client], r)
	}
	for _, seen := range byClient {
		c.w.checkPaceOf(seen)
	}
}
