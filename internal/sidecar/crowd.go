package sidecar

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/key"
)

// keepersOf lists the keepers whose keys are made with that credential.
func (a *App) keepersOf(s *config.Account) []*keeper {
	var list []*keeper
	for _, k := range a.keepers {
		if k.settings.Account == s {
			list = append(list, k)
		}
	}
	return list
}

// crowd makes the keys of one account get on with each other: they share its requests.
func (a *App) crowd(account *balena.Account, keepers []*keeper) agent.Crowd {
	c := agent.Crowd{Turns: account.Turns(), Together: len(keepers) > 1, Spread: balena.Worthwhile(len(keepers)), Attended: true,
		// Processes that start together do not send together.
		Epoch: time.Now().Add(-time.Duration(rand.Int64N(int64(5 * time.Minute))))}
	if c.Spread {
		c.Requests, c.Files = a.requestWorkers, a.fileWorkers
	}
	return c
}

// list gives enough keys of an account whose names begin alike a list in common. Only user keys are listed by every server.
func (a *App) list(account *balena.Account, keepers []*keeper) {
	byPrefix := map[string][]*keeper{}
	for _, k := range keepers {
		if k.settings.Kind == key.User {
			byPrefix[k.settings.Prefix] = append(byPrefix[k.settings.Prefix], k)
		}
	}
	for _, alike := range byPrefix {
		if !balena.Worthwhile(len(alike)) {
			continue
		}
		every, all := alike[0].settings.Times.Check, make([]balena.Keeper, len(alike))
		for n, k := range alike {
			every, all[n] = min(every, k.settings.Times.Check), current{&k.current}
		}
		census := balena.NewCensus(account, every, all)
		a.censuses = append(a.censuses, census)
		for _, k := range alike {
			k.crowd.List = census.Ask
		}
	}
}

// current is the agent that keeps a key now. It holds nothing else of its keeper: what is in an interface stays in the
// binary with all methods of all that it leads to.
type current struct{ agent *atomic.Pointer[agent.Agent] }

func (c current) Holds() (key.Key, bool) { return c.agent.Load().Holds() }

func (c current) Sighted(seen key.Key, since time.Time) { c.agent.Load().Sighted(seen, since) }

func (c current) Doubt(missing bool) { c.agent.Load().Doubt(missing) }
