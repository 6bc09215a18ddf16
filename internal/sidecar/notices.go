package sidecar

import (
	"context"
	"net/url"
	"slices"
	"sync"

	"github.com/balena-injector/injector/internal/child"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/notify"
	"github.com/balena-injector/injector/key"
)

// prepareNotices makes the notifications of all keys. It is called before anybody can ask how they are.
func (a *App) prepareNotices(reaper *child.Reaper) {
	for _, k := range a.keepers {
		list := targets(k.settings.Notify, a.settings.Environ, reaper)
		told := newRoll(len(list), func(generation int) { k.agent().Acknowledge(generation) })
		for i, target := range list {
			n := notify.New(target, k.settings.Notify.Timeout, k.log, func(e notify.Event) { told.add(i, e.Generation) })
			k.tellers = append(k.tellers, n)
			k.told = append(k.told, func(p key.Publication, news bool) {
				if !news && !k.settings.Notify.First {
					told.add(i, p.Generation) // there is nothing to tell
					return
				}
				n.Tell(notify.Event{Key: k.settings.Name, Generation: p.Generation, Name: p.Key.Name, Expiry: p.Key.Expiry})
			})
		}
		if len(list) == 0 {
			k.told = append(k.told, func(p key.Publication, _ bool) { k.agent().Acknowledge(p.Generation) })
		}
	}
}

// startNotices makes the notifications go out, until the function that it returns is called.
func (a *App) startNotices() (end func()) {
	all, cancelAll := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, k := range a.keepers {
		ctx, cancel := context.WithCancel(all)
		k.retract = cancel // nobody is told of a key whose outputs are gone
		for _, n := range k.tellers {
			running.Go(func() { n.Run(ctx) })
		}
	}
	return func() { cancelAll(); running.Wait() }
}

// roll records which target knows of which generation.
type roll struct {
	mu    sync.Mutex
	knows []int
	all   func(generation int) // is told what everybody knows of
}

func newRoll(n int, all func(int)) *roll { return &roll{knows: make([]int, n), all: all} }

func (r *roll) add(i, generation int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.knows[i] = generation
	r.all(slices.Min(r.knows))
}

func targets(s config.Notify, env config.Environ, reaper *child.Reaper) []notify.Target {
	var list []notify.Target
	if len(s.Command) > 0 {
		list = append(list, &notify.Command{Args: s.Command, Environ: env.ForChild(), Starter: reaper})
	}
	if s.Signal != 0 {
		list = append(list, &notify.Signal{Signal: s.Signal, Process: s.Process})
	}
	if s.URL != "" {
		u, err := url.Parse(s.URL)
		if err == nil { // the settings have been checked
			list = append(list, &notify.HTTP{Method: s.Method, URL: u})
		}
	}
	return list
}
