package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/child"
	"github.com/balena-injector/injector/key"
)

// expiredFor is how long a key must have been expired before revoke --expired deletes it.
const expiredFor = 7 * 24 * time.Hour

func runInit(in *invocation) error {
	return in.keep("init", func(a *app) error {
		err := a.each(func(k *keeper) error { return k.named(k.agent().Init(in.stop, in.kill)) })
		if err == nil || !a.settings.several() || errors.Is(context.Cause(in.stop), agent.ErrHandOver) {
			return err
		}
		return errors.Join(err, a.each(func(k *keeper) error { return k.named(k.takeBack(in.kill)) }))
	})
}

// takeBack revokes the key that this init made, because another key of several could not be had: nobody may come
// and keep it. One that was adopted stays as it was.
func (k *keeper) takeBack(kill context.Context) error {
	s := k.agent().Status()
	if s.Counts.Mints == 0 || s.Key == nil {
		return nil
	}
	k.log.Info("another key could not be had: taking this one back")
	k.newAgent()
	return k.agent().Revoke(kill, kill)
}

func runRun(in *invocation) error {
	err := in.keep("run", func(a *app) error {
		stop, undo := a.handable(in.stop)
		defer undo()
		return a.guarded(stop, func() error { return a.run(stop, in.kill) })
	})
	if errors.Is(err, errStopped) {
		return nil
	}
	return err
}

// run keeps all keys until stop.
func (a *app) run(stop, kill context.Context) error {
	var beside sync.WaitGroup
	var orphans error
	beside.Go(func() { orphans = a.drainOrphans(stop, kill) })
	defer a.startNotices()()
	err := a.each(func(k *keeper) error { return k.run(stop, kill) })
	beside.Wait()
	return errors.Join(err, orphans)
}

// keep runs an agent's work with all that belongs to a live agent.
func (in *invocation) keep(name string, work func(*app) error) (err error) {
	if err := in.flags(name, nil); err != nil {
		return err
	}
	s, log, err := in.load(false)
	if err != nil {
		return err
	}
	a, err := newApp(name, s, log)
	if err != nil {
		return err
	}
	defer func() {
		if !errors.Is(err, errStuck) { // what hangs may hold a lock that Close wants; the end of the process does it all
			err = errors.Join(err, a.Close())
		}
	}()
	if err := a.lock(in.stop); err != nil {
		return err
	}
	defer func() { a.sign(err) }()
	a.sayHello()
	if name == "run" {
		reaper := child.NewReaper(false)
		defer reaper.Stop()
		a.prepareNotices(reaper)
	}
	return a.serve(in.stop, true, func() error { return work(a) })
}

// sign writes down for who asks later how this process left the state directory.
func (a *app) sign(err error) {
	p := agent.Process{PID: os.Getpid(), Command: a.command, Version: version(), Started: a.started.UTC(),
		End: agent.EndStopped, Ended: time.Now().UTC()}
	switch {
	case errors.Is(err, errStuck):
		return // what hangs may hold a lock
	case errors.As(err, new(*agent.LeftError)):
		p.End, p.Error = agent.EndLeft, err.Error()
	case err != nil && !errors.As(err, new(silentError)):
		p.Error = err.Error()
	case a.handedOver():
		p.End = agent.EndHandedOver
	case a.command == "init":
		p.End = agent.EndPublished
	}
	a.state.Sign(p)
}

// handedOver reports whether a key was left to the next start.
func (a *app) handedOver() bool {
	return slices.ContainsFunc(a.keepers, func(k *keeper) bool { return k.agent().Status().Phase == "handing over" })
}

// sayHello tells what is about to be done.
func (a *app) sayHello() {
	a.log.Info("starting", "command", a.command, "version", version(), "api", a.settings.API.URL, "keys", len(a.keepers))
	if len(a.keepers) > 20 {
		return
	}
	for _, k := range a.keepers {
		s := k.settings
		replaced, outputs := "never", "the command's environment"
		if s.Times.MaxTTL > 0 {
			replaced = short(s.Times.MaxTTL)
		}
		if len(s.Outputs) > 0 {
			outputs = strings.Join(s.paths(), ",")
		}
		k.log.Info("keeping a key", "kind", s.Kind, "outputs", outputs, "ttl", s.Times.TTL, "max_ttl", replaced)
	}
}

func runRevoke(in *invocation) (err error) {
	var expired bool
	if err := in.flags("revoke", func(f *flag.FlagSet) { f.BoolVar(&expired, "expired", false, "") }); err != nil {
		return err
	}
	s, log, err := in.loadToRevoke()
	if err != nil {
		return err
	}
	s.ShutdownTimeout = max(s.ShutdownTimeout, s.InitTimeout) // nobody is about to kill this command
	s.ShutdownDelay = 0
	if places := leftPlaces(s.StateDir); len(places) > 0 { // of execs that ran side by side
		s.StateDir = places[0]
		for _, place := range places[1:] {
			other := s
			other.StateDir = place
			err = errors.Join(err, in.revokeIn(other, log, false))
		}
	}
	if !expired && !exists(s.StateDir) {
		return fmt.Errorf("there is no state directory %s, so nothing is known to revoke: "+
			"set INJECTOR_OUTPUT or INJECTOR_STATE_DIR as the injector had them", s.StateDir)
	}
	return errors.Join(err, in.revokeIn(s, log, expired))
}

// revokeIn revokes what one state directory names.
func (in *invocation) revokeIn(s settings, log *slog.Logger, expired bool) (err error) {
	a, err := newApp("revoke", s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if err := a.state.TryLock(); errors.Is(err, agent.ErrLocked) {
		return fmt.Errorf("%w: it revokes its keys itself when it is stopped", err)
	} else if err != nil {
		return err
	}
	defer func() { a.sign(err); a.vacate() }()
	err = a.each(func(k *keeper) error { return k.named(k.agent().Revoke(in.stop, in.kill)) })
	orphans := a.endOrphans(func(orphan *agent.Agent) error { return orphan.Revoke(in.stop, in.kill) })
	if err = errors.Join(err, orphans); err != nil {
		if left, ok := errors.AsType[*agent.LeftError](err); ok && key.Is(left.Cause, key.Refused) {
			return left.Cause
		}
		return err
	}
	if !expired {
		return nil
	}
	for _, k := range a.keepers {
		n, e := deleteExpired(in.stop, k.issuer, k.settings.Prefix)
		k.log.Info("deleted expired keys", "count", n, "name", k.settings.Prefix+"-…")
		err = errors.Join(err, k.named(e))
	}
	return err
}

// deleteExpired deletes keys of ours that expired long ago, one by one.
func deleteExpired(ctx context.Context, issuer *balena.Issuer, prefix string) (deleted int, err error) {
	if _, _, err := issuer.Identify(ctx); err != nil {
		return 0, err
	}
	now, _ := issuer.Now()
	before := now.Add(-expiredFor)
	for last := int64(0); ; {
		found, next, err := issuer.ListExpired(ctx, prefix, before, last)
		if err != nil || next <= last {
			return deleted, err
		}
		for _, e := range found {
			if err := issuer.DeleteExpired(ctx, e, before); err != nil {
				return deleted, err
			}
			deleted++
		}
		last = next
	}
}
