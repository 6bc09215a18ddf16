package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/notify"
	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/render"
)

// keeper is all that belongs to one key.
type keeper struct {
	app      *App
	settings config.Key
	log      *slog.Logger
	account  *balena.Account
	crowd    agent.Crowd
	issuer   *balena.Issuer
	files    *render.Files
	told     []func(p key.Publication, news bool) // who is told of publications
	tellers  []*notify.Notifier                   // the notifications among them
	retract  func()                               // ends the notifications
	current  atomic.Pointer[agent.Agent]
	failure  atomic.Pointer[string] // why it is not running at the moment
	budget   *agent.Budget
	proven   time.Time // when it was found last that the outputs can be written
}

// newKeeper returns a keeper that knows its outputs. Connect it.
func (a *App) newKeeper(s config.Key) *keeper {
	k := &keeper{app: a, settings: s, log: a.log, files: a.newFiles(s), retract: func() {}}
	if s.Name != "" {
		k.log = a.log.With("key", s.Name)
	}
	return k
}

// connect gives the keeper its account, and an agent.
func (k *keeper) connect(account *balena.Account) {
	s := k.settings
	k.account, k.budget = account, newBudget(s)
	k.issuer = balena.NewIssuer(account, balena.IssuerConfig{
		Prefix:      s.Prefix,
		Kind:        s.Kind,
		Target:      s.Target,
		Description: s.Description,
		Gate:        k.budget,
	})
	k.newAgent()
}

func (a *App) newFiles(s config.Key) *render.Files {
	return render.New(
		render.Config{Outputs: s.Outputs, Dirs: a.dirs, About: render.About{URL: a.settings.API.URL, Target: s.Target.String()}})
}

// newAgent makes an agent, which can work once.
func (k *keeper) newAgent() {
	s, all := k.settings, k.app.settings
	k.current.Store(agent.New(agent.Config{
		Issuer:          k.issuer,
		Publisher:       k.files,
		Store:           k.app.state.Journal(s.Name),
		Budget:          k.budget,
		Times:           agent.Times(s.Times),
		Proven:          k.proven,
		URL:             all.API.URL,
		Login:           s.Account.Login,
		Kind:            s.Kind,
		Target:          s.Target.String(),
		Outputs:         s.Paths(),
		InitTimeout:     all.InitTimeout,
		ShutdownDelay:   all.ShutdownDelay,
		ShutdownTimeout: all.ShutdownTimeout,
		KeepOnExit:      all.KeepOnExit,
		Crowd:           k.crowd,
		Log:             k.log,
		Advise:          k.advise,
		Announce:        k.announce,
		Retract:         func() { k.retract() },
	}))
}

// advise is Advise with the names of the variables that hold this key's credential.
func (k *keeper) advise(err error) string {
	env, account := k.app.settings.Environ, k.settings.Account.Key
	text := Advise(env, err)
	for _, secret := range config.Credentials() {
		text = strings.ReplaceAll(text, secret, env.OwnName(account, secret))
	}
	text = strings.ReplaceAll(text, "BALENA_USERNAME", env.OwnName(account, "BALENA_USERNAME"))
	for _, variable := range []string{"INJECTOR_KIND", "INJECTOR_TARGET"} {
		text = strings.ReplaceAll(text, variable, env.SetName(k.settings.Name, variable))
	}
	return text
}

func (k *keeper) agent() *agent.Agent { return k.current.Load() }

func (k *keeper) announce(p key.Publication, news bool) {
	for _, tell := range k.told {
		tell(p, news)
	}
}

// restartPause is the wait before a key that could not start is tried again.
const restartPause = 30 * time.Second

// start keeps the key until stop, and calls ended then. Where there are others, one that cannot begin is tried again: its
// directory may be mounted by then.
func (k *keeper) start(stop, kill context.Context, ended func(error)) {
	k.agent().Start(stop, kill, func(err error) {
		if err == nil || stop.Err() != nil || k.settings.Name == "" {
			ended(k.named(err))
			return
		}
		k.startAgain(stop, kill, err, ended)
	})
}

// startAgain waits before a key that could not begin is tried again.
func (k *keeper) startAgain(stop, kill context.Context, err error, ended func(error)) {
	k.log.Error("this key cannot be kept", "error", err, "next_try_in", restartPause)
	text := err.Error()
	k.failure.Store(&text)
	select {
	case <-time.After(restartPause):
	case <-stop.Done():
		ended(k.named(k.endUnbegun(stop, kill)))
		return
	}
	k.newAgent()
	k.failure.Store(nil)
	k.start(stop, kill, ended)
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
	if err == nil || k.settings.Name == "" {
		return err
	}
	return fmt.Errorf("key %s: %w", k.settings.Name, err)
}

// each does work for all keys at once, and returns what went wrong with any.
func (a *App) each(work func(*keeper) error) error {
	return a.eachBeside(func(k *keeper, ended func(error)) {
		go func() { ended(work(k)) }()
	})
}

// eachBeside is each for work that goes on by itself, and calls ended once.
func (a *App) eachBeside(begin func(k *keeper, ended func(error))) error {
	errs := make(chan error, len(a.keepers))
	for _, k := range a.keepers {
		begin(k, func(err error) { errs <- err })
	}
	var all error
	for range a.keepers {
		all = errors.Join(all, <-errs)
	}
	return all
}
