package main

import (
	"fmt"
	"time"

	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/words"
	"github.com/balena-injector/injector/key"
)

// teller writes sentences, each on a line.
type teller func(format string, args ...any)

func runExplain(in *invocation) error {
	if err := in.flags("explain", nil); err != nil {
		return err
	}
	r, err := in.report()
	if err != nil {
		return err
	}
	say := teller(func(format string, args ...any) { _, _ = fmt.Fprintf(in.stdout, format+"\n", args...) })
	explainReport(say, r, time.Now())
	if r.State == probe.Running || r.State == probe.Another || r.State == probe.Silent {
		return nil
	}
	s, _, err := in.load(config.Options{})
	if err != nil {
		return err
	}
	say("\nWith this configuration one would do the following.")
	for _, k := range s.Keys {
		if k.Name != "" {
			say("For %s:", k.Name)
		}
		explainPlan(say, k.Times, k.Kind, k.CanRotate)
	}
	return nil
}

// explainPlan says what a schedule means before there is a key.
func explainPlan(say teller, t config.Times, kind key.Kind, canRotate bool) {
	say("A %s key lives for %s at a time. It is extended %s to %s after the last extension; its secret stays the same, and no app notices.",
		kind, words.Short(t.TTL), words.Short(t.TTL/2), words.Short(t.TTL*2/3))
	switch {
	case t.MaxTTL > 0:
		say("Before it would get older than %s another key takes its place: the file changes, and the old key lives on for %s.",
			words.Short(t.MaxTTL), words.Short(t.Overlap))
	case canRotate:
		say("It is never replaced, because INJECTOR_MAX_TTL is 0.")
	default:
		say("It is never replaced: a session token cannot mint another one later. A password can.")
	}
	if kind != key.User {
		say("Where the server does not list %s keys (openBalena), they can neither be extended nor revoked: "+
			"each is replaced instead of extended, and dies at its expiry.", kind)
	}
	if canRotate {
		say("Every %s the server is asked whether the key lives; a dead one is replaced then.", words.Short(t.Check))
	} else {
		say("Every %s the server is asked whether the key lives. "+
			"A dead one can only be replaced with a login less than 20 minutes old.", words.Short(t.Check))
	}
	say("An outage of the API of up to %s is survived at any time, and of up to %s right after an extension.",
		words.Short(t.TTL/3), words.Short(t.TTL))
	say("On a stop the file is removed and the key revoked.")
}

// explainReport says how things are, and what comes next, in sentences.
func explainReport(say teller, r probe.Report, now time.Time) {
	if r.Ready {
		say("Ready: apps can rely on what they read.")
	} else {
		say("Not ready: %s.", r.Reason)
		if r.Fix != "" {
			say("What helps: %s.", r.Fix)
		}
	}
	if !r.HandsOverUntil.IsZero() {
		say("A stop before %s leaves its keys to the next start.", r.HandsOverUntil.UTC().Format(time.RFC3339))
	}
	if text := clockLine(r); text != "" {
		say("This machine's clock is %s.", text)
	}
	for _, k := range r.Keys {
		if r.State == probe.Another {
			break // it is about other keys
		}
		if k.Name != "" {
			say("For %s:", k.Name)
			if r.State == probe.Running && !k.Ready && len(r.Keys) > 1 {
				say("Not ready: %s.", k.Reason)
			}
		}
		if r.State == probe.Running {
			explainRunning(say, r, k, now)
		} else {
			explainRest(say, r, k, now)
		}
	}
}

// explainRest says what an injector that does not answer has left.
func explainRest(say teller, r probe.Report, k probe.KeyReport, now time.Time) {
	if k.Key != nil {
		say("The journal names a key that apps read: %s.", keyLine(*k.Key, r, now))
	}
	if k.Coming != nil {
		say("The journal names a key that was being minted: %s.", keyLine(*k.Coming, r, now))
	}
	for _, old := range k.Old {
		say("The journal names a key that was to be revoked: %s.", keyLine(old, r, now))
	}
	for _, f := range k.Files {
		say("%s.", f)
	}
}

// explainRunning says what a running agent will do, in times and in words.
func explainRunning(say teller, r probe.Report, k probe.KeyReport, now time.Time) {
	switch {
	case k.Key == nil && k.Coming != nil:
		say("There is no key yet that apps read. One is on its way: %s.", keyLine(*k.Coming, r, now))
	case k.Key == nil:
		say("There is no key yet. The next try to mint one is %s.", when(k.Schedule.RotateAt, now))
	case k.Key.Dead:
		say("The key %s (generation %d) is dead: balena refuses it, and so the app that reads it.", k.Key.Name, k.Generation)
		say("The next try to replace it is %s; until then the file stays as it is.", when(k.Schedule.RotateAt, now))
	default:
		explainKey(say, r, k, now)
	}
	for _, old := range k.Old {
		say("The next try to revoke the old key %s is %s.", old.Name, when(old.RevokeAt, now))
	}
	for _, s := range k.Stranded {
		say("Nothing but its expiry ends a key of another account or API: %s.", keyLine(s, r, now))
	}
	for _, text := range k.Complaints(now) {
		say("Trouble: %s.", text)
	}
}

// when says when something comes. What is overdue comes as soon as it can.
func when(t, now time.Time) string {
	if d := t.Sub(now); d >= time.Second {
		return fmt.Sprintf("%s, at %s", words.In(d), t.UTC().Format(time.RFC3339))
	}
	return "now"
}

func explainKey(say teller, r probe.Report, k probe.KeyReport, now time.Time) {
	say("The app reads generation %d, the key %s.", k.Generation, keyLine(*k.Key, r, now))
	if t := k.Schedule.ExtendAt; !t.IsZero() {
		say("It will be extended %s; its secret stays the same.", when(t, now))
	}
	if t := k.Schedule.RotateAt; !t.IsZero() {
		say("Another key will take its place %s; then the old one lives on for %s.",
			when(t, now), words.Human(time.Duration(k.Overlap)))
	} else {
		say("It will not be replaced as long as it can be extended.")
	}
	if t := k.Schedule.CheckAt; !t.IsZero() {
		say("The server will be asked whether it lives %s.", when(t, now))
	}
	left := k.Schedule.ExpiresAt.Sub(now)
	if left <= 0 {
		say("It expired %s ago: the app is refused until it is extended or replaced.", words.Human(-left))
		return
	}
	say("If the API went away now, the key would last for %s, until %s.",
		words.Human(left), k.Schedule.ExpiresAt.UTC().Format(time.RFC3339))
	if !k.SessionExpiry.IsZero() {
		say("The session that extends and revokes it ends at %s, and is renewed before, if the server lets it.",
			k.SessionExpiry.UTC().Format(time.RFC3339))
	}
}
