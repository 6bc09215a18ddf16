package sidecar

import (
	"context"
	"fmt"
	"time"

	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/statedir"
	"github.com/balena-injector/injector/internal/words"
	"github.com/balena-injector/injector/key"
)

// Sayer takes a line for the person who has asked: "ok", "note" or "...", and what it says.
type Sayer func(kind, format string, args ...any)

// Check tries what Run would do, up to the mint. If now, it tries a login that was refused before, too.
func (a *App) Check(stop context.Context, now bool, say Sayer) error {
	for _, k := range a.keepers {
		if err := k.named(at(outputVariables, k.files.Prove(stop))); err != nil {
			return err // of several: New only fails if none can be written
		}
		for _, o := range k.settings.Outputs {
			say("ok", "output %s can be rendered and written with mode %04o", o.Path, o.Mode)
		}
	}
	if err := a.checkPlace(stop, say); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(stop, a.settings.InitTimeout)
	defer cancel()
	for _, k := range a.keepers {
		if now {
			k.account.TryNow(ctx)
		}
		if err := k.named(k.check(ctx, say)); err != nil {
			return err
		}
	}
	if now { // an injector that rests because of earlier refusals may go on
		if answer, err := probe.Tell(ctx, a.settings.StateDir, "reread"); err == nil {
			say("ok", "the injector that runs here: %s", answer)
		}
	}
	return a.advisories(ctx, say)
}

// check tries the credential of one key.
func (k *keeper) check(ctx context.Context, say Sayer) error {
	s := k.settings
	user, target, err := k.issuer.Identify(ctx)
	for key.Is(err, key.Busy) && ctx.Err() == nil {
		_, wait := key.ClassOf(err)
		say("...", "%v; waiting %v", err, wait.Round(time.Second))
		select {
		case <-time.After(wait):
			user, target, err = k.issuer.Identify(ctx)
		case <-ctx.Done():
		}
	}
	if err != nil {
		return err
	}
	say("ok", "API %s accepts the credential of user %d", k.app.settings.API.URL, user)
	if s.Target.String() != "" {
		say("ok", "%s %s has id %d", s.Kind, s.Target, target)
	}
	say("ok", "a %s key could be minted now; none was", s.Kind)
	return nil
}

// advisories tells what works now and will not for ever.
func (a *App) advisories(ctx context.Context, say Sayer) error {
	for _, k := range a.keepers {
		for _, path := range k.files.WithoutToken() {
			say("note", "the template of %s never uses the token: what it makes is the same for every key", path)
		}
	}
	for settings, account := range a.accounts {
		if ends := account.SessionExpiry(); settings.Credentials.Password == nil && !ends.IsZero() {
			say("note", "the session token runs out on %s unless it can be refreshed; a start after that fails",
				ends.UTC().Format(time.RFC3339))
		}
	}
	if skew, ok := a.client.Skew(); ok && skew.Abs() > probe.WrongClock {
		say("note", "this machine's clock is off by %v; the injector does not mind, TLS may", skew.Round(time.Second))
	}
	return ctx.Err()
}

// checkPlace finds out whether run would find its state directory free, and its address.
func (a *App) checkPlace(ctx context.Context, say Sayer) error {
	s := a.settings
	rest, err := lookAt(s.StateDir)
	if err != nil {
		return at("INJECTOR_STATE_DIR", err)
	}
	if err := at("INJECTOR_STATE_DIR", probe.CheckSocket(s.StateDir)); err != nil {
		return err
	}
	if rest.broken != nil {
		say("note", "a journal cannot be read; run sets it aside, and keys that it names die at their expiry: %v", rest.broken)
	}
	for _, k := range rest.keys {
		if k.Waits > 0 && k.Key == nil && !rest.held {
			say("note", "run would wait until %s before it mints: the starts before it ended by themselves",
				time.Now().Add(k.Waits).UTC().Format(time.RFC3339))
		}
	}
	if !rest.held {
		say("ok", "state directory %s", s.StateDir)
		return a.checkListen(say)
	}
	var outputs []string
	for _, k := range a.keepers {
		outputs = append(outputs, k.settings.Paths()...)
	}
	r, err := probe.AskReport(ctx, s.StateDir, outputs)
	if err != nil {
		return fmt.Errorf("%w: %w", statedir.ErrLocked, err)
	}
	if r.State == probe.Another {
		return fmt.Errorf("%w: %s; %s", statedir.ErrLocked, s.StateDir, r.Reason)
	}
	say("ok", "state directory %s, in which `injector %s` (pid %d) keeps these outputs", s.StateDir, r.Command, r.PID)
	say(
		"note",
		"%v: another `injector run` with this configuration would wait for its end for up to %s, and then fail",
		statedir.ErrLocked,
		words.Short(s.InitTimeout),
	)
	if s.Listen == r.Listen {
		return nil
	}
	return a.checkListen(say)
}

func (a *App) checkListen(say Sayer) error {
	if a.settings.Listen == "" {
		return nil
	}
	l, err := listen(a.settings.Listen)
	if err != nil {
		return err
	}
	say("ok", "address %s for probes", l.Addr())
	return l.Close()
}
