package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/child"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/statedir"
	"github.com/balena-injector/injector/render"
	"github.com/balena-injector/injector/turn"
)

// Process is what others are told of this process.
type Process struct {
	Command  string // of the program, such as run
	Version  string // of the program
	Revision string // of its source; empty: not known
	Started  time.Time
}

// App is everything wired together for one process. Make it with New, call one of Init, Run, Exec, Revoke and Check,
// once, and close it.
type App struct {
	process  Process
	settings config.Settings
	log      *slog.Logger
	client   *balena.Client
	accounts map[*config.Account]*balena.Account
	dirs     *render.Dirs
	state    *statedir.Dir
	keepers  []*keeper
	censuses []*balena.Census
	// requestWorkers and fileWorkers work for all keys, where there are many.
	requestWorkers, fileWorkers *turn.Workers
	requests                    *probe.Requests
	closers                     []func() error
	handover                    atomic.Pointer[time.Time] // until when a stop hands over
	again                       func()                    // reads everything again that can change; nil: nothing does

	supervisor atomic.Pointer[child.Supervisor] // of exec's command; nil: there is none
	clockWrong atomic.Bool                      // which was said
}

// New wires an App. It makes the state directory if need be, and holds nothing yet that others could not hold as well.
func New(p Process, s config.Settings, log *slog.Logger) (*App, error) {
	a := &App{process: p, settings: s, log: log, requests: probe.NewRequests(),
		dirs: render.NewDirs(s.OnDisk), accounts: map[*config.Account]*balena.Account{},
		requestWorkers: turn.NewWorkers(16), fileWorkers: turn.NewWorkers(4)}
	a.closers = append(a.closers, a.dirs.Close, func() error { a.requestWorkers.Close(); a.fileWorkers.Close(); return nil })
	if err := a.wire(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *App) wire() error {
	for _, s := range a.settings.Keys {
		a.keepers = append(a.keepers, a.newKeeper(s))
	}
	if a.process.Command != "revoke" { // which writes nothing
		if err := a.proveOutputs(); err != nil {
			return err
		}
	}
	if err := a.openState(); err != nil {
		return err
	}
	client, err := a.newClient()
	if err != nil {
		return err
	}
	a.client = client
	for _, settings := range a.settings.Accounts {
		if a.accounts[settings], err = a.newAccount(client, settings); err != nil {
			return err
		}
	}
	for _, settings := range a.settings.Accounts {
		keepers := a.keepersOf(settings)
		if len(keepers) == 0 {
			continue
		}
		crowd := a.crowd(a.accounts[settings], keepers)
		for _, k := range keepers {
			k.crowd = crowd
		}
		a.list(a.accounts[settings], keepers)
		for _, k := range keepers {
			k.connect(a.accounts[settings])
		}
	}
	return nil
}

// openState opens the state directory. That it lies on a disk is allowed, and costs something.
func (a *App) openState() error {
	state, err := statedir.Open(a.settings.StateDir)
	if err != nil {
		return at("INJECTOR_STATE_DIR", err)
	}
	a.state = state
	a.closers = append(a.closers, state.Close)
	if !state.KeepsSecrets() {
		a.log.Warn("the state directory is not in memory, so it keeps no secrets: each start mints another key and revokes the last one "+
			"after that", "directory", state.Path())
	}
	return nil
}

// outputVariables name the paths of outputs.
const outputVariables = "INJECTOR_OUTPUT or INJECTOR_TEMPLATES"

// proveOutputs makes sure that nothing is created where no output may be. With several keys, one that has no place must
// not stop the others.
func (a *App) proveOutputs() error {
	var errs []error
	for _, k := range a.keepers {
		err := at(outputVariables, k.files.Prove(context.Background()))
		if err != nil {
			errs = append(errs, k.named(err))
			continue
		}
		k.proven = time.Now()
	}
	if len(errs) < len(a.keepers) {
		return nil
	}
	return errors.Join(errs...)
}

func (a *App) newClient() (*balena.Client, error) {
	cfg := a.settings.API
	cfg.Observe = func(kind, class string, took time.Duration) {
		a.requests.Observe(kind, class, took)
		a.noteClock()
	}
	client, err := balena.NewClient(cfg)
	if err == nil {
		a.closers = append(a.closers, func() error { client.Close(); return nil })
	}
	return client, err
}

// noteClock says once that this machine's clock is wrong, and once that it is right again.
func (a *App) noteClock() {
	skew, ok := a.client.Skew()
	if wrong := skew.Abs() > probe.WrongClock; ok && a.clockWrong.Swap(wrong) != wrong {
		if wrong {
			a.log.Warn("this machine's clock is wrong: the injector goes by balena's, but TLS and apps may not", "ahead",
				skew.Round(time.Second))
		} else {
			a.log.Info("this machine's clock is right again")
		}
	}
}

// Close releases everything, the lock last.
func (a *App) Close() error {
	var err error
	for _, close := range slices.Backward(a.closers) {
		err = errors.Join(err, close())
	}
	return err
}
