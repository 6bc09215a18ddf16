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
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/words"
	"github.com/balena-injector/injector/render"
)

// app is everything wired together for one command.
type app struct {
	command  string
	started  time.Time
	settings settings
	log      *slog.Logger
	client   *balena.Client
	accounts map[*accountSettings]*balena.Account
	dirs     *render.Dirs
	state    *agent.StateDir
	keepers  []*keeper
	requests *probe.Requests
	closers  []func() error
	handover atomic.Pointer[time.Time] // until when a stop hands over
	again    func()                    // reads everything again that can change; nil: nothing does

	clockWrong atomic.Bool // which was said
}

// load reads the configuration and takes the credentials out of the environment.
func (in *invocation) load(supervising bool) (settings, *slog.Logger, error) {
	return in.loadBy(&parser{}, supervising)
}

// loadToRevoke is load for a command that renders nothing: templates may be wrong or gone.
func (in *invocation) loadToRevoke() (settings, *slog.Logger, error) {
	return in.loadBy(&parser{withoutFiles: true}, in.supervisedHere())
}

func (in *invocation) loadBy(p *parser, supervising bool) (settings, *slog.Logger, error) {
	s, err := p.settings(in.environ, supervising)
	if err != nil {
		return s, nil, err
	}
	hideCredentials(s)
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
	a := &app{command: command, started: time.Now(), settings: s, log: log, requests: probe.NewRequests(),
		dirs: render.NewDirs(s.OnDisk), accounts: map[*accountSettings]*balena.Account{}}
	a.closers = append(a.closers, a.dirs.Close)
	beThrifty(len(s.Keys))
	if err := a.wire(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *app) wire() error {
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
	for _, k := range a.settings.Keys {
		a.keepers = append(a.keepers, a.newKeeper(k))
	}
	return nil
}

// openState opens the state directory. That it lies on a disk is allowed, and costs something.
func (a *app) openState() error {
	if a.command != "revoke" { // which writes nothing
		if err := a.checkParents(); err != nil {
			return err
		}
	}
	state, err := agent.OpenStateDir(a.settings.StateDir)
	if err != nil {
		return at("INJECTOR_STATE_DIR", err)
	}
	a.state = state
	a.closers = append(a.closers, state.Close)
	if !state.KeepsSecrets() {
		a.log.Warn("the state directory is not in memory, so it keeps no secrets: each start mints another key and revokes the last one after that", "directory", state.Path())
	}
	return nil
}

// outputVariables name the paths of outputs.
const outputVariables = "INJECTOR_OUTPUT or INJECTOR_TEMPLATES"

// checkParents makes sure that nothing is created where no output may be. With several keys, one
// that has no place must not stop the others.
func (a *app) checkParents() error {
	var errs []error
	for _, k := range a.settings.Keys {
		if err := at(outputVariables, a.newFiles(k).Prove()); err != nil {
			if k.Key != "" {
				err = fmt.Errorf("key %s: %w", k.Key, err)
			}
			errs = append(errs, err)
		}
	}
	if len(errs) < len(a.settings.Keys) {
		return nil
	}
	return errors.Join(errs...)
}

func (a *app) newClient() (*balena.Client, error) {
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
func (a *app) noteClock() {
	skew, ok := a.client.Skew()
	if wrong := skew.Abs() > wrongClock; ok && a.clockWrong.Swap(wrong) != wrong {
		if wrong {
			a.log.Warn("this machine's clock is wrong: the injector goes by balena's, but TLS and apps may not", "ahead", skew.Round(time.Second))
		} else {
			a.log.Info("this machine's clock is right again")
		}
	}
}

// Close releases everything, the lock last.
func (a *app) Close() error {
	var err error
	for _, close := range slices.Backward(a.closers) {
		err = errors.Join(err, close())
	}
	return err
}

// serve runs work beside the probes and the watchers, which end with it. SIGHUP is for the injector if hangup says so,
// and otherwise for its command.
func (a *app) serve(stop context.Context, hangup bool, work func() error) error {
	socket, err := probe.Listen(a.state.Root(), a.state.Path())
	if err != nil {
		return at("INJECTOR_STATE_DIR", fmt.Errorf("make the socket for probes in %s: %w", a.state.Path(), err))
	}
	var tcp net.Listener
	if a.settings.Listen != "" {
		if tcp, err = listen(a.settings.Listen); err != nil {
			return errors.Join(err, socket.Close())
		}
		a.log.Info("listening for probes and metrics", "address", tcp.Addr().String())
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(stop))
	var group errgroup.Group
	a.again = func() { a.reread(ctx) }
	if hangup {
		defer a.onHangup(func() { a.reread(ctx); a.renew() })()
	}
	server := &probe.Server{Alive: a.Alive, Report: a.report, Ask: a.ask,
		Metrics: func(w io.Writer) { probe.WriteMetrics(w, a.report(), a.requests) }}
	if tcp != nil {
		group.Go(func() error { return server.Serve(ctx, nil, tcp) })
	}
	serveSocket := func(socket net.Listener) (end func()) {
		ctx, end := context.WithCancel(ctx)
		group.Go(func() error { return server.Serve(ctx, socket, nil) })
		return end
	}
	endSocket := serveSocket(socket)
	a.state.OnRenewal(func() {
		endSocket() // nobody finds it any more
		if socket := a.listenAgain(); socket != nil {
			endSocket = serveSocket(socket)
		}
	})
	defer a.state.OnRenewal(nil)
	a.watch(ctx, &group)
	err = work()
	cancel()
	return errors.Join(err, group.Wait())
}

// listenAgain makes the socket where others look for it now. It returns nil if that fails, which it says.
func (a *app) listenAgain() net.Listener {
	a.log.Warn("the state directory was removed or is another one now; the journal is written there", "directory", a.state.Path())
	socket, err := probe.Listen(a.state.Root(), a.state.Path())
	if err != nil {
		a.log.Error("the socket for probes could not be made there; healthcheck and status get no answer", "error", err)
		return nil
	}
	return socket
}

// watch looks after the files that are read again when they change.
func (a *app) watch(ctx context.Context, group *errgroup.Group) {
	if files := a.settings.Files; len(files) > 0 {
		group.Go(func() error { return render.Watch(ctx, a.log, files, func() { a.credentialsChanged(ctx) }) })
	}
	var templates []string
	for _, k := range a.keepers {
		for _, path := range k.files.Templates() {
			if !slices.Contains(templates, path) {
				templates = append(templates, path)
			}
		}
	}
	if len(templates) > 0 {
		group.Go(func() error {
			return render.Watch(ctx, a.log, templates, func() { a.readTemplates((*render.Files).Reload) })
		})
	}
}

func (a *app) credentialsChanged(ctx context.Context) {
	a.log.Info("reading the credentials again")
	for settings, account := range a.accounts {
		c := settings.Credentials
		for _, source := range []balena.Source{c.Password, c.TOTP, c.Session, c.UserKey} {
			if source == nil {
				continue
			}
			if _, err := source(); err != nil {
				a.log.Warn("a credential cannot be read; without it the next login will fail", "error", err)
			}
		}
		account.CredentialsChanged(ctx)
	}
	for _, k := range a.keepers {
		k.agent().TryCredential()
	}
}

// readTemplates reads the templates again; what is wrong with one is said by who uses it.
func (a *app) readTemplates(again func(*render.Files) error) {
	a.log.Info("reading the templates again")
	for _, k := range a.keepers {
		_ = again(k.files)
		k.agent().Wake()
	}
}

// reread reads everything again that can change while the program runs.
func (a *app) reread(ctx context.Context) {
	for _, account := range a.accounts {
		account.TryNow(ctx) // a person wants to know
	}
	a.credentialsChanged(ctx)
	if slices.ContainsFunc(a.keepers, func(k *keeper) bool { return len(k.files.Templates()) > 0 }) {
		a.readTemplates((*render.Files).Reread)
	}
}

// renew makes every key be extended or replaced now.
func (a *app) renew() {
	a.log.Info("extending or replacing keys now, as SIGHUP asks")
	for _, k := range a.keepers {
		k.agent().Renew()
	}
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

// Alive reports whether every key's loop makes progress.
func (a *app) Alive() bool {
	return !slices.ContainsFunc(a.keepers, func(k *keeper) bool { return !k.agent().Alive() })
}

func (a *app) report() probe.Report {
	skew, _ := a.client.Skew()
	r := probe.Report{State: probe.Running, StateDir: a.state.Path(), PID: os.Getpid(), Version: version(), Command: a.command,
		Started: a.started, API: a.settings.API.URL, Listen: a.settings.Listen, Ahead: words.Duration(skew.Round(time.Second))}
	if until := a.handover.Load(); until != nil && time.Now().Before(*until) {
		r.HandsOverUntil = until.Truncate(time.Second)
	}
	for _, k := range a.keepers {
		r.Keys = append(r.Keys, k.report())
	}
	r.Judge()
	return r
}

// lock keeps other injectors out of the state directory, waiting for one that is on its way out.
func (a *app) lock(stop context.Context) (err error) {
	defer func() {
		if err == nil {
			a.state.Sign(agent.Process{PID: os.Getpid(), Command: a.command, Version: version(), Started: a.started.UTC()})
		}
	}()
	if err := a.state.TryLock(); !errors.Is(err, agent.ErrLocked) {
		if doubt := a.state.Unlockable(); doubt != nil {
			a.log.Warn("nothing keeps another injector out of the state directory: its file system has no locks", "error", doubt)
		}
		return err
	}
	a.log.Info("waiting for another injector to leave the state directory", "directory", a.state.Path(), "at_most", a.settings.InitTimeout)
	ctx, cancel := context.WithTimeout(stop, a.settings.InitTimeout)
	defer cancel()
	err = a.state.Lock(ctx)
	if err != nil && stop.Err() != nil {
		return errStopped
	}
	return err
}

// errStopped ends a command that was stopped before it held anything.
var errStopped = errors.New("stopped while waiting for the state directory")
