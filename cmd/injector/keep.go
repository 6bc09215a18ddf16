package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/key"
)

// expiredFor is how long a key must have been expired before revoke --expired deletes it.
const expiredFor = 7 * 24 * time.Hour

func runInit(in *invocation) error {
	return in.keep("init", func(a *app) error { return a.agent.Init(in.stop, in.kill) })
}

func runRun(in *invocation) error {
	err := in.keep("run", func(a *app) error { return a.agent.Run(in.stop, in.kill) })
	if errors.Is(err, errStopped) {
		return nil
	}
	return err
}

// keep runs an agent's work with all that belongs to a live agent.
func (in *invocation) keep(name string, work func(*app) error) (err error) {
	if err := in.flags(name, nil); err != nil {
		return err
	}
	s, log, err := in.load()
	if err != nil {
		return err
	}
	a, err := newApp(name, s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if err := a.lock(in.stop); err != nil {
		return err
	}
	log.Info("starting", "command", name, "version", version(), "api", s.API.URL, "kind", s.Kind, "output", s.Output.Path, "ttl", s.Times.TTL, "max_ttl", s.Times.MaxTTL)
	return a.serve(in.stop, func() error { return work(a) })
}

func runRevoke(in *invocation) (err error) {
	var expired bool
	if err := in.flags("revoke", func(f *flag.FlagSet) { f.BoolVar(&expired, "expired", false, "") }); err != nil {
		return err
	}
	s, log, err := in.load()
	if err != nil {
		return err
	}
	s.ShutdownTimeout = max(s.ShutdownTimeout, s.InitTimeout) // nobody is about to kill this command
	s.ShutdownDelay = 0
	a, err := newApp("revoke", s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if err := a.state.TryLock(); err != nil {
		return err
	}
	if err := a.agent.Revoke(in.stop, in.kill); err != nil {
		if left, ok := errors.AsType[*agent.LeftError](err); ok && key.Is(left.Cause, key.Refused) {
			return left.Cause
		}
		return err
	}
	if !expired {
		return nil
	}
	n, err := deleteExpired(in.stop, a.issuer, s.Prefix)
	log.Info("deleted expired keys", "count", n, "name", s.Prefix+"-…")
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

func runCheck(in *invocation) (err error) {
	if err := in.flags("check", nil); err != nil {
		return err
	}
	say := func(what string) { _, _ = fmt.Fprintf(in.stdout, "ok  %s\n", what) }
	s, log, err := in.load()
	if err != nil {
		return err
	}
	say("configuration")
	a, err := newApp("check", s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	say(fmt.Sprintf("output %s can be written with mode %04o", s.Output.Path, s.Output.Mode))
	say("state directory " + s.StateDir)
	ctx, cancel := context.WithTimeout(in.stop, s.InitTimeout)
	defer cancel()
	user, target, err := a.issuer.Identify(ctx)
	for key.Is(err, key.Busy) && ctx.Err() == nil {
		_, wait := key.ClassOf(err)
		_, _ = fmt.Fprintf(in.stdout, "... %v; waiting %v\n", err, wait.Round(time.Second))
		select {
		case <-time.After(wait):
			user, target, err = a.issuer.Identify(ctx)
		case <-ctx.Done():
		}
	}
	if err != nil {
		return err
	}
	say(fmt.Sprintf("API %s accepts the credential of user %d", s.API.URL, user))
	if s.Target.String() != "" {
		say(fmt.Sprintf("%s %s has id %d", s.Kind, s.Target, target))
	}
	say("a " + string(s.Kind) + " key could be minted now; none was")
	return a.advisories(in, ctx)
}

// advisories tells what works now and will not for ever.
func (a *app) advisories(in *invocation, ctx context.Context) error {
	note := func(text string) { _, _ = fmt.Fprintf(in.stdout, "note %s\n", text) }
	if ends := a.account.SessionExpiry(); a.settings.Credentials.Password == nil && !ends.IsZero() {
		note("the session token runs out on " + ends.UTC().Format(time.RFC3339) + " unless it can be refreshed; a start after that fails")
	}
	if skew, ok := a.client.Skew(); ok && skew.Abs() > time.Minute {
		note(fmt.Sprintf("this machine's clock is off by %v; the injector does not mind, TLS may", skew.Round(time.Second)))
	}
	return ctx.Err()
}
