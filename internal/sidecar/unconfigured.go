package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/statedir"
	"github.com/balena-injector/injector/render"
)

// unconfigured lists the journals in the state directory that no configured key belongs to: of keys that
// INJECTOR_KEYS named before.
func (a *App) unconfigured() ([]string, error) {
	slots, err := a.state.Slots()
	return slices.DeleteFunc(slots, func(slot string) bool {
		return slices.ContainsFunc(a.settings.Keys, func(k config.Key) bool { return k.Name == slot })
	}), err
}

// endUnconfigured ends the keys of those journals, with work for each. What cannot be revoked stays in the journal for the next
// start, and is part of the error.
func (a *App) endUnconfigured(work func(*agent.Agent) error) error {
	slots, err := a.unconfigured()
	errs := make([]error, len(slots))
	var all sync.WaitGroup
	for i, slot := range slots {
		all.Go(func() {
			log := a.log.With("key", slot)
			log.Info("revoking what is left of a key that is not configured any more")
			errs[i] = a.endUnconfiguredKey(slot, log, work)
		})
	}
	all.Wait()
	return errors.Join(append(errs, err)...)
}

// drainUnconfigured ends them beside the keys that are kept, for as long as that takes, or until stop.
func (a *App) drainUnconfigured(stop, kill context.Context) error {
	return a.endUnconfigured(func(left *agent.Agent) error { return left.Drain(stop, kill) })
}

func (a *App) endUnconfiguredKey(slot string, log *slog.Logger, work func(*agent.Agent) error) error {
	store := a.state.Journal(slot)
	raw, err := store.Load(context.Background())
	if err != nil {
		return err
	}
	left, err := agent.ReadJournal(raw)
	if err != nil {
		return err
	}
	s, all := a.settings.Keys[0], a.settings
	for _, account := range all.Accounts {
		if account.Login == left.Login {
			s.Account = account
		}
	}
	budget := newBudget(s)
	err = work(agent.New(agent.Config{
		Issuer:          balena.NewIssuer(a.accounts[s.Account], balena.IssuerConfig{Kind: s.Kind, Target: s.Target, Gate: budget}),
		Publisher:       render.New(render.Config{Outputs: leftovers(left), Dirs: a.dirs}),
		Store:           store,
		Budget:          budget,
		Times:           agent.Times(s.Times),
		URL:             all.API.URL,
		Login:           s.Account.Login,
		Kind:            s.Kind,
		Target:          s.Target.String(),
		InitTimeout:     all.InitTimeout,
		ShutdownTimeout: all.ShutdownTimeout,
		KeepOnExit:      all.KeepOnExit,
		Log:             log,
		Advise:          func(err error) string { return Advise(all.Environ, err) },
	}))
	if err != nil {
		return err
	}
	return a.forget(store)
}

// forget removes a journal that names no key any more.
func (a *App) forget(store *statedir.Journal) error {
	raw, err := store.Load(context.Background())
	if err != nil || raw == nil {
		return err
	}
	if left, err := agent.ReadJournal(raw); err != nil || len(left.Names) > 0 {
		return err
	}
	return store.Remove()
}

// leftovers are the outputs that such a journal names and that still show a key of its own: what
// lies beside them says so.
func leftovers(r agent.Resting) []render.Output {
	var list []render.Output
	for _, path := range r.Outputs {
		if info, err := render.ReadInfo(path); err == nil && slices.Contains(r.Names, info.Name) {
			list = append(list, render.Output{Path: path, Mode: 0o440, Owner: render.Keep})
		}
	}
	return list
}
