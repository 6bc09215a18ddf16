package sidecar

import (
	"fmt"
	"path/filepath"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/rootdir"
	"github.com/balena-injector/injector/internal/statedir"
)

// newAccount makes the account of one credential.
func (a *App) newAccount(client *balena.Client, s *config.Account) (*balena.Account, error) {
	suffix := ""
	for _, other := range a.settings.Accounts { // refusals of one login are counted together
		if other.Login == s.Login && s.Login != "" || other == s { // nobody knows yet whose a session token is
			if other.Key != "" {
				suffix = "-" + other.Key
			}
			break
		}
	}
	cfg := balena.AccountConfig{Credentials: s.Credentials, Log: a.log, Refusals: a.state.File("refused-logins" + suffix + ".json"),
		Keys: len(a.keepersOf(s)), PerMinute: a.settings.PerMinute}
	if path := a.settings.SessionCache; path != "" {
		dir, err := rootdir.Open(filepath.Dir(path))
		if err != nil {
			return nil, fmt.Errorf("INJECTOR_SESSION_CACHE: %w", err)
		}
		a.closers = append(a.closers, dir.Close)
		cfg.Cache = statedir.NewFile(dir, filepath.Base(path)+suffix)
	}
	account, err := balena.NewAccount(client, cfg)
	if err == nil {
		openTurns(account.Turns())
	}
	return account, err
}
