package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/key"
)

func runHealthcheck(in *invocation) error {
	live := false
	if err := in.flags("healthcheck", func(f *flag.FlagSet) { f.BoolVar(&live, "live", false, "") }); err != nil {
		return err
	}
	at, err := placeFor(in.environ)
	if err != nil {
		return err
	}
	path := "/livez"
	if !live {
		path = "/readyz?" + url.Values{"output": at.outputs}.Encode()
	}
	code, body, err := probe.Ask(in.stop, at.dir, path)
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return errors.New(strings.TrimSpace(string(body)))
	}
	return nil
}

func runStatus(in *invocation) error {
	asJSON := false
	if err := in.flags("status", func(f *flag.FlagSet) { f.BoolVar(&asJSON, "json", false, "") }); err != nil {
		return err
	}
	r, err := in.ask()
	if err != nil {
		return err
	}
	if asJSON {
		e := json.NewEncoder(in.stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	tw := tabwriter.NewWriter(in.stdout, 0, 0, 2, ' ', 0)
	printStatus(tw, r, time.Now())
	return tw.Flush()
}

func (in *invocation) ask() (probe.Report, error) {
	dir, err := stateDirOf(in.environ)
	if err != nil {
		return probe.Report{}, err
	}
	return probe.AskReport(in.stop, dir)
}

func printStatus(tw *tabwriter.Writer, r probe.Report, now time.Time) {
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("agent", "%s, pid %d, %s", r.Command, r.PID, r.Version)
	if r.Ready {
		line("ready", "yes")
	} else {
		line("ready", "no: %s", r.Reason)
	}
	for _, k := range r.Keys {
		if k.Name != "" {
			_, _ = fmt.Fprintln(tw)
			line("for", "%s", k.Name)
		}
		printKey(line, k, now)
	}
}

func printKey(line func(name, format string, args ...any), r probe.KeyReport, now time.Time) {
	line("phase", "%s", r.Phase)
	if !r.Ready {
		line("not ready", "%s", r.Reason)
	}
	line("generation", "%d", r.Generation)
	key := func(name string, k agent.KeyStatus) {
		line(name, "%s (id %s, %s), expires %s", k.Name, orUnknown(k.ID), k.Kind, k.Expiry.UTC().Format(time.RFC3339))
	}
	if r.Key != nil {
		key("key", *r.Key)
	}
	if r.Coming != nil {
		key("coming", *r.Coming)
	}
	for _, k := range r.Old {
		key("old", k)
	}
	for _, o := range r.Outputs {
		line("output", "%s", o)
	}
	at := func(name string, t time.Time) {
		if !t.IsZero() {
			if late := now.Sub(t); late > time.Second {
				line(name, "%s late", human(late))
				return
			}
			line(name, "in %s", human(t.Sub(now)))
		}
	}
	at("extension", r.Schedule.ExtendAt)
	at("replacement", r.Schedule.RotateAt)
	at("check", r.Schedule.CheckAt)
	for _, t := range r.Trouble {
		line("trouble", "could not %s, tried %d× since %s: %s", t.Step, t.Failures, t.Since.UTC().Format(time.RFC3339), t.Error)
		if t.Fix != "" {
			line("fix", "%s", t.Fix)
		}
	}
	if r.Credential != "" {
		line("credential", "%s", r.Credential)
	}
	for _, u := range r.Untold {
		line("not notified", "%s", u)
	}
	line("since start", "minted %d, extended %d, replaced %d, revoked %d", r.Counts.Mints, r.Counts.Extensions, r.Counts.Rotations, r.Counts.Revocations)
}

func orUnknown(id int64) string {
	if id == 0 {
		return "unknown"
	}
	return fmt.Sprint(id)
}

// human writes a duration as people say it: two units at most.
func human(d time.Duration) string {
	if d < time.Second {
		return "a moment"
	}
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d days %d h", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}

func runExplain(in *invocation) error {
	if err := in.flags("explain", nil); err != nil {
		return err
	}
	r, err := in.ask()
	if err == nil {
		for _, k := range r.Keys {
			explainRunning(in, k, time.Now())
		}
		return nil
	}
	if !errors.Is(err, probe.ErrNoAgent) {
		return err
	}
	s, _, err := in.load(false)
	if err != nil {
		return err
	}
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(in.stdout, format+"\n", args...) }
	say("No injector is running here. With this configuration one would do the following.")
	for _, k := range s.Keys {
		if k.Key != "" {
			say("For %s:", k.Key)
		}
		explainPlan(say, k.Times, k.Kind, k.CanRotate)
	}
	return nil
}

// explainPlan tells what a schedule means before there is a key.
func explainPlan(say func(string, ...any), t agent.Times, kind key.Kind, canRotate bool) {
	say("A %s key lives for %s at a time. It is extended %s to %s after the last extension; its secret stays the same, and no app notices.",
		kind, short(t.TTL), short(t.TTL/2), short(t.TTL*2/3))
	switch {
	case t.MaxTTL > 0:
		say("Before it would get older than %s another key takes its place: the file changes, and the old key lives on for %s.", short(t.MaxTTL), short(t.Overlap))
	case canRotate:
		say("It is never replaced, because INJECTOR_MAX_TTL is 0.")
	default:
		say("It is never replaced: a session token cannot mint another one later. A password can.")
	}
	if kind != key.User {
		say("Where the server does not list %s keys (openBalena), they can neither be extended nor revoked: each is replaced instead of extended, and dies at its expiry.", kind)
	}
	if canRotate {
		say("Every %s the server is asked whether the key lives; a dead one is replaced then.", short(t.Check))
	} else {
		say("Every %s the server is asked whether the key lives. A dead one can only be replaced with a login less than 20 minutes old.", short(t.Check))
	}
	say("An outage of the API of up to %s is survived at any time, and of up to %s right after an extension.", short(t.TTL/3), short(t.TTL))
	say("On a stop the file is removed and the key revoked.")
}

// explainRunning tells what a running agent will do, in times and in words.
func explainRunning(in *invocation, r probe.KeyReport, now time.Time) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(in.stdout, format+"\n", args...) }
	if r.Name != "" {
		say("For %s:", r.Name)
	}
	if r.Key == nil {
		say("There is no key yet.")
	} else {
		explainKey(say, r, now)
	}
	for _, k := range r.Old {
		say("The old key %s is revoked in %s.", k.Name, human(k.RevokeAt.Sub(now)))
	}
	for _, t := range r.Trouble {
		say("Trouble: it could not %s (%s). The next try is in %s.", t.Step, t.Error, human(t.NextTry.Sub(now)))
		if t.Fix != "" {
			say("What would help: %s.", t.Fix)
		}
	}
}

func explainKey(say func(string, ...any), r probe.KeyReport, now time.Time) {
	at := func(t time.Time) string {
		if late := now.Sub(t); late > time.Second {
			return fmt.Sprintf("as soon as the API lets it: it is %s late", human(late))
		}
		return fmt.Sprintf("in %s, at %s", human(t.Sub(now)), t.UTC().Format(time.RFC3339))
	}
	state := "ready"
	if !r.Ready {
		state = "not ready: " + r.Reason
	}
	say("The key %s (generation %d) is %s.", r.Key.Name, r.Generation, state)
	if t := r.Schedule.ExtendAt; !t.IsZero() {
		say("It will be extended %s; its secret stays the same.", at(t))
	}
	if t := r.Schedule.RotateAt; !t.IsZero() {
		say("Another key will take its place %s; then the old one lives on for %s.", at(t), human(r.Overlap))
	} else {
		say("It will not be replaced as long as it can be extended.")
	}
	if t := r.Schedule.CheckAt; !t.IsZero() {
		say("The server will be asked whether it lives %s.", at(t))
	}
	if left := r.Schedule.ExpiresAt.Sub(now); left <= 0 {
		say("It has expired %s ago.", human(-left))
		return
	}
	say("If the API went away now, the key would last until %s: %s.", r.Schedule.ExpiresAt.UTC().Format(time.RFC3339), human(r.Schedule.ExpiresAt.Sub(now)))
	if !r.SessionExpiry.IsZero() {
		say("The session that extends and revokes it ends at %s, and is renewed before, if the server lets it.", r.SessionExpiry.UTC().Format(time.RFC3339))
	}
}
