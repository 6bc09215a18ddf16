package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/child"
)

// Init adopts or mints every key and publishes it, for a later Run to adopt. stop asks for an orderly end, and kill gives
// up at once. If one of several keys fails, those that this call minted are revoked again, and adopted ones are left
// alone, unless agent.ErrHandOver is stop's cause. Errors are those of all keys, joined; ErrStopped if stop came while it
// waited for the state directory.
func (a *App) Init(stop, kill context.Context) error {
	return a.exclusively(stop, func() {}, func() error {
		err := a.each(func(k *keeper) error { return k.named(k.agent().Init(stop, kill)) })
		if err == nil || !a.settings.Several() || errors.Is(context.Cause(stop), agent.ErrHandOver) {
			return err
		}
		return errors.Join(err, a.each(func(k *keeper) error { return k.named(k.takeBack(kill)) }))
	})
}

// takeBack revokes the key that this init made, because another key of several could not be made: nobody may come
// and keep it. One that was adopted stays as it was.
func (k *keeper) takeBack(kill context.Context) error {
	s := k.agent().Status()
	if s.Counts.Mints == 0 || s.Key == nil {
		return nil
	}
	k.log.Info("another key could not be made: taking this one back")
	k.newAgent()
	return k.agent().Revoke(kill, kill)
}

// Run keeps every key until stop, and revokes or hands over then; kill gives up at once. Errors are those of all keys,
// joined, with *agent.LeftError for keys that were left; ErrStopped if stop came while it waited for the state directory;
// ErrStuck if a key's loop made no progress for minutes.
func (a *App) Run(stop, kill context.Context) error {
	reaper := child.NewReaper(false)
	defer reaper.Stop()
	return a.exclusively(stop, func() { a.prepareNotices(reaper) }, func() error {
		stop, undo := a.withHandover(stop)
		defer undo()
		return a.guarded(stop, func() error { return a.run(stop, kill) })
	})
}

// run keeps all keys until stop.
func (a *App) run(stop, kill context.Context) error {
	var beside sync.WaitGroup
	var others error
	beside.Go(func() { others = a.drainUnconfigured(stop, kill) })
	defer a.startNotices()()
	err := a.eachBeside(func(k *keeper, ended func(error)) { k.start(stop, kill, ended) })
	beside.Wait()
	return errors.Join(err, others)
}

// exclusively runs work as the only injector in the state directory, beside the probes. Once it is the only one it calls prepare.
func (a *App) exclusively(stop context.Context, prepare func(), work func() error) (err error) {
	if err := a.lock(stop); err != nil {
		return err
	}
	defer func() { a.sign(err) }()
	a.logStart()
	prepare()
	return a.serve(stop, true, work)
}

// logStart says what is about to be done.
func (a *App) logStart() {
	a.log.Info("starting", "command", a.process.Command, "version", a.process.Version, "api", a.settings.API.URL, "keys", len(a.keepers))
	if len(a.keepers) > 20 {
		return
	}
	for _, k := range a.keepers {
		s := k.settings
		replaced, outputs := slog.String("max_ttl", "never"), "the command's environment"
		if s.Times.MaxTTL > 0 {
			replaced = slog.Duration("max_ttl", s.Times.MaxTTL)
		}
		if len(s.Outputs) > 0 {
			outputs = strings.Join(s.Paths(), ",")
		}
		k.log.Info("keeping a key", "kind", s.Kind, "outputs", outputs, "ttl", s.Times.TTL, replaced)
	}
}
