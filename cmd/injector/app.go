package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/rootdir"
	"github.com/balena-injector/injector/render"
)

// app is everything wired together for one command.
type app struct {
	command  string
	settings settings
	log      *slog.Logger
	client   *balena.Client
	account  *balena.Account
	issuer   *balena.Issuer
	files    *render.Files
	state    *agent.StateDir
	agent    *agent.Agent
	requests *probe.Requests
	closers  []func() error
}

// load reads the configuration and takes the credentials out of the environment.
func (in *invocation) load() (settings, *slog.Logger, error) {
	s, err := parseSettings(in.environ)
	if err != nil {
		return s, nil, err
	}
	hideCredentials()
	log := newLog(in.stderr, s.LogLevel, s.LogJSON)
	for _, w := range s.Warnings {
		log.Warn(w)
	}
	return s, log, nil
}

// newLog returns a log for people or for programs. Durations are text in both.
func newLog(w io.Writer, level slog.Level, asJSON bool) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration {
			a.Value = slog.StringValue(short(a.Value.Duration()))
		}
		return a
	}}
	if asJSON {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// newApp wires an app. Close it.
func newApp(command string, s settings, log *slog.Logger) (*app, error) {
	a := &app{command: command, settings: s, log: log, requests: probe.NewRequests()}
	if err := a.openState(); err != nil {
		return nil, err
	}
	a.files = render.New(render.Config{Outputs: []render.Output{s.Output}, OnDisk: s.OnDisk})
	a.closers = append(a.closers, a.files.Close)
	budget := newBudget(s)
	if err := a.openAccount(budget); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	a.agent = agent.New(agent.Config{Issuer: a.issuer, Account: a.issuer, Publisher: a.files, State: a.state, Budget: budget, Times: s.Times,
		Prefix: s.Prefix, URL: s.API.URL, Login: s.Login, Kind: s.Kind, Target: s.Target.String(), Outputs: []string{s.Output.Path},
		InitTimeout: s.InitTimeout, ShutdownDelay: s.ShutdownDelay, ShutdownTimeout: s.ShutdownTimeout, KeepOnExit: s.KeepOnExit,
		Log: log, Advise: advise})
	return a, nil
}

// openState opens the state directory. That it lies on a disk is allowed, and costs something.
func (a *app) openState() error {
	if err := a.checkParent(); err != nil {
		return err
	}
	state, err := agent.OpenStateDir(a.settings.StateDir)
	if err != nil {
		return err
	}
	a.state = state
	a.closers = append(a.closers, state.Close)
	if !state.KeepsSecrets() {
		a.log.Warn("the state directory is not in memory, so it keeps no secrets: each start revokes the last key and mints another", "directory", state.Path())
	}
	return nil
}

// checkParent makes sure that nothing is created where no output may be.
func (a *app) checkParent() error {
	f := render.New(render.Config{Outputs: []render.Output{a.settings.Output}, OnDisk: a.settings.OnDisk})
	return errors.Join(f.Prove(), f.Close())
}

func (a *app) openAccount(gate balena.Gate) error {
	cfg := a.settings.API
	cfg.Observe = a.requests.Observe
	var err error
	if a.client, err = balena.NewClient(cfg); err != nil {
		return err
	}
	a.closers = append(a.closers, func() error { a.client.Close(); return nil })
	accountConfig := balena.AccountConfig{Credentials: a.settings.Credentials, Log: a.log, Refusals: a.state.File("refused-logins.json")}
	if path := a.settings.SessionCache; path != "" {
		dir, err := rootdir.Open(filepath.Dir(path))
		if err != nil {
			return fmt.Errorf("INJECTOR_SESSION_CACHE: %w", err)
		}
		a.closers = append(a.closers, dir.Close)
		accountConfig.Cache = agent.NewFile(dir, filepath.Base(path))
	}
	if a.account, err = balena.NewAccount(a.client, accountConfig); err != nil {
		return err
	}
	a.issuer = balena.NewIssuer(a.account, balena.IssuerConfig{Kind: a.settings.Kind, Target: a.settings.Target, Description: a.settings.Description, Gate: gate})
	return nil
}

// Close releases everything, the lock last.
func (a *app) Close() error {
	var err error
	for i := len(a.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, a.closers[i]())
	}
	return err
}

// serve runs work beside the probes and the watcher, which end with it.
func (a *app) serve(stop context.Context, work func() error) error {
	socket, err := probe.Listen(a.state.Root(), a.state.Path())
	if err != nil {
		return fmt.Errorf("make the socket for probes: %w", err)
	}
	var tcp net.Listener
	if a.settings.Listen != "" {
		if tcp, err = net.Listen("tcp", a.settings.Listen); err != nil {
			return errors.Join(fmt.Errorf("INJECTOR_LISTEN: %w", err), socket.Close())
		}
	}
	if tcp != nil {
		a.log.Info("listening for probes and metrics", "address", tcp.Addr().String())
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(stop))
	var group errgroup.Group
	server := &probe.Server{Agent: a.agent, Report: a.report, Metrics: func(w io.Writer) { probe.WriteMetrics(w, a.report(), a.requests) }}
	group.Go(func() error { return server.Serve(ctx, socket, tcp) })
	if len(a.settings.Files) > 0 {
		group.Go(func() error { return render.Watch(ctx, a.log, a.settings.Files, func() { a.credentialsChanged(ctx) }) })
	}
	defer a.onHangup(func() { a.credentialsChanged(ctx) })()
	err = work()
	cancel()
	return errors.Join(err, group.Wait())
}

func (a *app) credentialsChanged(ctx context.Context) {
	a.log.Info("reading the credentials again")
	a.account.CredentialsChanged(ctx)
	a.agent.Wake()
}

// onHangup calls f at each SIGHUP.
func (a *app) onHangup(f func()) (undo func()) {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-caught:
				f()
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(caught); close(done) }
}

func (a *app) report() probe.Report {
	s := a.settings
	skew, _ := a.client.Skew()
	return probe.Report{Status: a.agent.Status(), PID: os.Getpid(), Version: version(), Command: a.command, Outputs: []string{s.Output.Path},
		SessionExpiry: a.account.SessionExpiry(), ClockSkew: skew, TTL: s.Times.TTL, MaxTTL: s.Times.MaxTTL, Overlap: s.Times.Overlap}
}

// lock keeps other injectors out of the state directory, waiting for one that is on its way out.
func (a *app) lock(stop context.Context) error {
	if err := a.state.TryLock(); !errors.Is(err, agent.ErrLocked) {
		return err
	}
	a.log.Info("waiting for another injector to leave the state directory", "directory", a.state.Path(), "at_most", a.settings.InitTimeout)
	ctx, cancel := context.WithTimeout(stop, a.settings.InitTimeout)
	defer cancel()
	err := a.state.Lock(ctx)
	if err != nil && stop.Err() != nil {
		return errStopped
	}
	return err
}

// errStopped ends a command that was stopped before it held anything.
var errStopped = errors.New("stopped while waiting for the state directory")

// stateDirOf returns the state directory for commands that only ask, also when the rest of the
// configuration is not there.
func stateDirOf() (string, error) {
	v, err := readVariables()
	if err != nil {
		return "", err
	}
	if v.StateDir != "" {
		return filepath.Clean(v.StateDir), nil
	}
	return filepath.Join(filepath.Dir(v.Output), ".injector"), nil
}
