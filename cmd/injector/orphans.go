package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"slices"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/render"
)

// orphans are the journals in the state directory that no configured key belongs to: of keys that
// INJECTOR_KEYS named before.
func (a *app) orphans() ([]string, error) {
	slots, err := a.state.Slots()
	return slices.DeleteFunc(slots, func(slot string) bool {
		return slices.ContainsFunc(a.settings.Keys, func(k keySettings) bool { return k.Key == slot })
	}), err
}

// revokeOrphans ends what the orphans name. What cannot be revoked stays in the journal for the next
// start.
func (a *app) revokeOrphans(stop context.Context) error {
	slots, err := a.orphans()
	for _, slot := range slots {
		log := a.log.With("for", slot)
		log.Info("revoking what is left of a key that is not configured any more")
		if e := a.revokeOrphan(stop, slot, log); e != nil && stop.Err() == nil {
			log.Warn("what is left of a key that is not configured any more could not be revoked; the next start tries again", "error", e)
			err = errors.Join(err, e)
		}
	}
	return err
}

// revokeOrphan uses a client of its own: an agent that revokes hurries all requests of its client.
func (a *app) revokeOrphan(stop context.Context, slot string, log *slog.Logger) error {
	s := a.settings.Keys[0]
	recorded, err := a.state.Recorded(slot)
	if err != nil {
		return err
	}
	for _, account := range a.settings.Accounts {
		if account.Login == recorded.Login {
			s.Account = account
		}
	}
	client, err := balena.NewClient(a.settings.API)
	if err != nil {
		return err
	}
	defer client.Close()
	account, err := a.newAccount(client, s.Account)
	if err != nil {
		return err
	}
	budget := newBudget(s)
	issuer := balena.NewIssuer(account, balena.IssuerConfig{Kind: s.Kind, Target: s.Target, Gate: budget})
	orphan := agent.New(agent.Config{Issuer: issuer, Account: issuer, Publisher: render.New(render.Config{Outputs: leftovers(recorded), Dirs: a.dirs}), State: a.state, Slot: slot, Budget: budget, Times: s.Times,
		Prefix: s.Prefix, URL: a.settings.API.URL, Login: s.Account.Login, Kind: s.Kind, Target: s.Target.String(),
		InitTimeout: a.settings.InitTimeout, ShutdownTimeout: a.settings.InitTimeout, Log: log, Advise: advise})
	if err := orphan.Revoke(stop, stop); err != nil {
		return err
	}
	return a.state.Forget(slot)
}

// leftovers are the outputs that an orphan's journal names and that still show a key of its own: what
// lies beside them says so.
func leftovers(r agent.Recorded) []render.Output {
	var list []render.Output
	for _, path := range r.Outputs {
		raw, err := os.ReadFile(path + ".json")
		var info render.Info
		if err == nil && json.Unmarshal(raw, &info) == nil && slices.Contains(r.Names, info.Name) {
			list = append(list, render.Output{Path: path, Mode: 0o440, Owner: render.Keep})
		}
	}
	return list
}
