package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/notify"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/rootdir"
	"github.com/balena-injector/injector/internal/words"
	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/render"
)

// keeper is all that belongs to one key.
type keeper struct {
	app      *app
	settings keySettings
	log      *slog.Logger
	account  *balena.Account
	issuer   *balena.Issuer
	files    *render.Files
	told     []func(p key.Publication, news bool) // who is told of publications
	tellers  []*notify.Notifier                   // the notifications among them
	retract  func()                               // ends the notifications
	current  atomic.Pointer[agent.Agent]
	failure  atomic.Pointer[string] // why it is not running at the moment
	budget   *agent.Budget
}

func (a *app) newKeeper(s keySettings) *keeper {
	k := &keeper{app: a, settings: s, log: a.log, account: a.accounts[s.Account], budget: newBudget(s), retract: func() {}}
	if s.Key != "" {
		k.log = a.log.With("key", s.Key)
	}
	k.files = a.newFiles(s)
	k.issuer = balena.NewIssuer(k.account, balena.IssuerConfig{Kind: s.Kind, Target: s.Target, Description: s.Description, Gate: k.budget})
	k.newAgent()
	return k
}

func (a *app) newFiles(s keySettings) *render.Files {
	return render.New(render.Config{Outputs: s.Outputs, Dirs: a.dirs, About: render.About{URL: a.settings.API.URL, Target: s.Target.String()}})
}

// newAgent makes an agent, which can work once.
func (k *keeper) newAgent() {
	s, all := k.settings, k.app.settings
	k.current.Store(agent.New(agent.Config{Issuer: k.issuer, Account: k.issuer, Publisher: k.files, State: k.app.state, Slot: s.Key, Budget: k.budget, Times: s.Times,
		Prefix: s.Prefix, URL: all.API.URL, Login: s.Account.Login, Kind: s.Kind, Target: s.Target.String(), Outputs: s.paths(),
		InitTimeout: all.InitTimeout, ShutdownDelay: all.ShutdownDelay, ShutdownTimeout: all.ShutdownTimeout, KeepOnExit: all.KeepOnExit,
		Log: k.log, Advise: k.advise, Announce: k.announce, Retract: func() { k.retract() }}))
}

// advise is advise with the names of the variables that hold this key's credential.
func (k *keeper) advise(err error) string {
	text := advise(err)
	for _, secret := range secretVariables {
		text = strings.ReplaceAll(text, secret.name, scope{k.settings.Account.Key}.own(secret.name))
	}
	text = strings.ReplaceAll(text, "BALENA_USERNAME", scope{k.settings.Account.Key}.own("BALENA_USERNAME"))
	for _, variable := range []string{"INJECTOR_KIND", "INJECTOR_TARGET"} {
		text = strings.ReplaceAll(text, variable, scope{k.settings.Key}.named(variable))
	}
	return text
}

func (k *keeper) agent() *agent.Agent { return k.current.Load() }

func (k *keeper) announce(p key.Publication, news bool) {
	for _, tell := range k.told {
		tell(p, news)
	}
}

// again is how long a key of several rests that could not even begin.
const again = 30 * time.Second

// run keeps the key until stop. Where there are others, one that cannot begin is tried again: its
// directory may be mounted by then.
func (k *keeper) run(stop, kill context.Context) error {
	for {
		err := k.agent().Run(stop, kill)
		if err == nil || stop.Err() != nil || !k.app.settings.several() {
			return k.named(err)
		}
		k.log.Error("this key cannot be kept", "error", err, "next_try_in", again)
		text := err.Error()
		k.failure.Store(&text)
		select {
		case <-time.After(again):
		case <-stop.Done():
			return k.named(k.endUnbegun(stop, kill))
		}
		k.newAgent()
		k.failure.Store(nil)
	}
}

// endUnbegun revokes what the journal names of a key that could not begin, unless it is handed over.
func (k *keeper) endUnbegun(stop, kill context.Context) error {
	if k.app.settings.KeepOnExit || errors.Is(context.Cause(stop), agent.ErrHandOver) {
		return nil
	}
	k.newAgent()
	return k.agent().Revoke(kill, kill)
}

// named adds the key's name to an error, where there are several.
func (k *keeper) named(err error) error {
	if err == nil || k.settings.Key == "" {
		return err
	}
	return fmt.Errorf("key %s: %w", k.settings.Key, err)
}

// each does work for all keys at once, and returns what went wrong with any.
func (a *app) each(work func(*keeper) error) error {
	errs := make(chan error, len(a.keepers))
	for _, k := range a.keepers {
		go func() { errs <- work(k) }()
	}
	var all error
	for range a.keepers {
		all = errors.Join(all, <-errs)
	}
	return all
}

func (k *keeper) report() probe.KeyReport {
	t := k.settings.Times
	var untold []string
	for _, n := range k.tellers {
		if failure := n.Failing(); failure != "" {
			untold = append(untold, failure)
		}
	}
	r := probe.KeyReport{Name: k.settings.Key, Status: k.agent().Status(), Outputs: k.settings.paths(), Login: k.account.Login(),
		SessionExpiry: k.account.SessionExpiry(), TTL: words.Duration(t.TTL), MaxTTL: words.Duration(t.MaxTTL),
		Overlap: words.Duration(t.Overlap), Untold: untold}
	if failure := k.failure.Load(); failure != nil {
		r.Ready, r.Reason = false, *failure
	}
	if err := k.account.CredentialTrouble(); err != nil {
		r.Credential = &probe.Credential{Error: err.Error(), Fix: k.advise(err)}
	}
	return r
}

// newAccount makes the account of one credential.
func (a *app) newAccount(client *balena.Client, s *accountSettings) (*balena.Account, error) {
	suffix := ""
	for _, other := range a.settings.Accounts { // refusals of one login are counted together
		if other.Login == s.Login && s.Login != "" || other == s { // nobody knows yet whose a session token is
			if other.Key != "" {
				suffix = "-" + other.Key
			}
			break
		}
	}
	cfg := balena.AccountConfig{Credentials: s.Credentials, Log: a.log, Refusals: a.state.File("refused-logins" + suffix + ".json")}
	if path := a.settings.SessionCache; path != "" {
		dir, err := rootdir.Open(filepath.Dir(path))
		if err != nil {
			return nil, fmt.Errorf("INJECTOR_SESSION_CACHE: %w", err)
		}
		a.closers = append(a.closers, dir.Close)
		cfg.Cache = agent.NewFile(dir, filepath.Base(path)+suffix)
	}
	return balena.NewAccount(client, cfg)
}
