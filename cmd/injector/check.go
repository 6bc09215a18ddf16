package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/key"
)

// runCheck tries what run would do, up to the mint.
func runCheck(in *invocation) (err error) {
	now := false
	if err := in.flags("check", func(f *flag.FlagSet) { f.BoolVar(&now, "now", false, "") }); err != nil {
		return err
	}
	say := func(what string) { _, _ = fmt.Fprintf(in.stdout, "ok  %s\n", what) }
	s, log, err := in.load(false)
	if err != nil {
		return err
	}
	say("configuration")
	a, err := newApp("check", s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	for _, k := range a.keepers {
		if err := k.named(at(outputVariables, k.files.Prove())); err != nil {
			return err
		}
		for _, o := range k.settings.Outputs {
			say(fmt.Sprintf("output %s can be rendered and written with mode %04o", o.Path, o.Mode))
		}
	}
	if err := a.checkPlace(in, say); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(in.stop, s.InitTimeout)
	defer cancel()
	for _, k := range a.keepers {
		if now {
			k.account.TryNow(ctx)
		}
		if err := k.named(k.check(ctx, in, say)); err != nil {
			return err
		}
	}
	if now { // an injector that rests because of earlier refusals may go on
		if answer, err := probe.Tell(ctx, s.StateDir, "reread"); err == nil {
			say("the injector that runs here: " + answer)
		}
	}
	return a.advisories(in, ctx)
}

// check tries the credential of one key.
func (k *keeper) check(ctx context.Context, in *invocation, say func(string)) error {
	s := k.settings
	user, target, err := k.issuer.Identify(ctx)
	for key.Is(err, key.Busy) && ctx.Err() == nil {
		_, wait := key.ClassOf(err)
		_, _ = fmt.Fprintf(in.stdout, "... %v; waiting %v\n", err, wait.Round(time.Second))
		select {
		case <-time.After(wait):
			user, target, err = k.issuer.Identify(ctx)
		case <-ctx.Done():
		}
	}
	if err != nil {
		return err
	}
	say(fmt.Sprintf("API %s accepts the credential of user %d", k.app.settings.API.URL, user))
	if s.Target.String() != "" {
		say(fmt.Sprintf("%s %s has id %d", s.Kind, s.Target, target))
	}
	say("a " + string(s.Kind) + " key could be minted now; none was")
	return nil
}

// advisories tells what works now and will not for ever.
func (a *app) advisories(in *invocation, ctx context.Context) error {
	note := func(text string) { _, _ = fmt.Fprintf(in.stdout, "note %s\n", text) }
	for _, k := range a.keepers {
		for _, path := range k.files.WithoutToken() {
			note("the template of " + path + " never uses the token: what it makes is the same for every key")
		}
	}
	for settings, account := range a.accounts {
		if ends := account.SessionExpiry(); settings.Credentials.Password == nil && !ends.IsZero() {
			note("the session token runs out on " + ends.UTC().Format(time.RFC3339) + " unless it can be refreshed; a start after that fails")
		}
	}
	if skew, ok := a.client.Skew(); ok && skew.Abs() > wrongClock {
		note(fmt.Sprintf("this machine's clock is off by %v; the injector does not mind, TLS may", skew.Round(time.Second)))
	}
	return ctx.Err()
}

// checkPlace finds out whether run would find its state directory free, and its address.
func (a *app) checkPlace(in *invocation, say func(string)) error {
	s := a.settings
	rest, err := agent.Look(s.StateDir)
	if err != nil {
		return at("INJECTOR_STATE_DIR", err)
	}
	if err := at("INJECTOR_STATE_DIR", probe.CheckSocket(s.StateDir)); err != nil {
		return err
	}
	note := func(format string, args ...any) { _, _ = fmt.Fprintf(in.stdout, "note "+format+"\n", args...) }
	if rest.Broken != nil {
		note("a journal cannot be read; run sets it aside, and keys that it names die at their expiry: %v", rest.Broken)
	}
	for _, k := range rest.Keys {
		if k.Waits > 0 && k.Key == nil && !rest.Held {
			note("run would wait until %s before it mints: the starts before it ended by themselves", time.Now().Add(k.Waits).UTC().Format(time.RFC3339))
		}
	}
	if !rest.Held {
		say("state directory " + s.StateDir)
		return a.checkListen(say)
	}
	var outputs []string
	for _, k := range a.keepers {
		outputs = append(outputs, k.settings.paths()...)
	}
	r, err := probe.AskReport(in.stop, s.StateDir, outputs)
	if err != nil {
		return fmt.Errorf("%w: %w", agent.ErrLocked, err)
	}
	if r.State == probe.Another {
		return fmt.Errorf("%w: %s; %s", agent.ErrLocked, s.StateDir, r.Reason)
	}
	say(fmt.Sprintf("state directory %s, in which `injector %s` (pid %d) keeps these outputs", s.StateDir, r.Command, r.PID))
	note("%v: another `injector run` with this configuration would wait for its end for up to %s, and then fail", agent.ErrLocked, short(s.InitTimeout))
	if s.Listen == r.Listen {
		return nil
	}
	return a.checkListen(say)
}

func (a *app) checkListen(say func(string)) error {
	if a.settings.Listen == "" {
		return nil
	}
	l, err := listen(a.settings.Listen)
	if err != nil {
		return err
	}
	say("address " + l.Addr().String() + " for probes")
	return l.Close()
}

// listen listens on the address of INJECTOR_LISTEN. The error does not show it: anything can have been pasted there.
func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l, nil
	}
	if errors.As(err, new(*net.DNSError)) {
		return nil, errors.New("INJECTOR_LISTEN: its host is not known here")
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return nil, fmt.Errorf("INJECTOR_LISTEN: %w", err)
}
