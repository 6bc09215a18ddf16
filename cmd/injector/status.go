package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/words"
)

func runStatus(in *invocation) error {
	asJSON := false
	if err := in.flags("status", func(f *flag.FlagSet) { f.BoolVar(&asJSON, "json", false, "") }); err != nil {
		return err
	}
	r, err := in.report()
	if err != nil {
		return err
	}
	if asJSON {
		e := json.NewEncoder(in.stdout)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err = e.Encode(r.Whole())
	} else {
		tw := tabwriter.NewWriter(in.stdout, 0, 0, 2, ' ', 0)
		printStatus(tw, r, time.Now())
		err = tw.Flush()
	}
	if err == nil && r.State != probe.Running {
		return silent(exitFailed)
	}
	return err
}

// table writes a name and a text a line. What is empty is left out.
type table struct {
	tw  *tabwriter.Writer
	now time.Time
}

func (t table) line(name, format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != "" {
		_, _ = fmt.Fprintf(t.tw, "%s\t%s\n", name, text)
	}
}

// at writes when something comes.
func (t table) at(name string, when time.Time) {
	switch late := t.now.Sub(when); {
	case when.IsZero():
	case late > 10*time.Second:
		t.line(name, "now: it is %s late", words.Human(late))
	default:
		t.line(name, "%s", words.In(-late))
	}
}

func printStatus(tw *tabwriter.Writer, r probe.Report, now time.Time) {
	t := table{tw, now}
	t.line("injector", "%s", processLine(r, now))
	if r.Ready {
		t.line("ready", "yes")
	} else {
		t.line("ready", "no: %s", r.Reason)
		t.line("what helps", "%s", r.Fix)
	}
	if !r.HandsOverUntil.IsZero() {
		t.line("next stop", "hands over, until %s", r.HandsOverUntil.UTC().Format(time.RFC3339))
	}
	t.line("api", "%s", r.API)
	t.line("state directory", "%s", r.StateDir)
	if len(r.Others) > 0 {
		t.line("more execs", "in %s: set INJECTOR_STATE_DIR to one of them", strings.Join(r.Others, ", "))
	}
	if text := clockLine(r); text != "" {
		t.line("clock", "%s", text)
	}
	for _, k := range r.Keys {
		_, _ = fmt.Fprintln(tw)
		if k.Name != "" {
			t.line("key", "%s", k.Name)
		}
		t.key(r, k)
	}
}

// processLine says which process it is about.
func processLine(r probe.Report, now time.Time) string {
	if r.PID == 0 {
		return "none"
	}
	text := fmt.Sprintf("%s, pid %d, version %s", r.Command, r.PID, r.Version)
	switch {
	case r.State == probe.Running, r.State == probe.Another:
		return fmt.Sprintf("%s, up for %s", text, words.Human(now.Sub(r.Started)))
	case r.Ended.IsZero():
		return fmt.Sprintf("%s, started %s: %s", text, r.Started.UTC().Format(time.RFC3339), r.State)
	}
	return fmt.Sprintf("%s: %s %s", text, r.State, r.Ended.UTC().Format(time.RFC3339))
}

// clockLine says how wrong the local clock is; "" if it is not.
func clockLine(r probe.Report) string {
	switch ahead := time.Duration(r.Ahead); {
	case ahead > probe.WrongClock:
		return words.Human(ahead) + " ahead of balena's; the times here are this machine's, but for expiries"
	case ahead < -probe.WrongClock:
		return words.Human(-ahead) + " behind balena's; the times here are this machine's, but for expiries"
	}
	return ""
}

func (t table) key(r probe.Report, k probe.KeyReport) {
	if r.State == probe.Running && !k.Ready && len(r.Keys) > 1 {
		t.line("not ready", "%s", k.Reason)
	}
	switch {
	case k.UserID != 0 && k.Login != "":
		t.line("account", "%s, user %d", k.Login, k.UserID)
	case k.UserID != 0:
		t.line("account", "user %d", k.UserID)
	}
	if r.State == probe.Running {
		t.line("phase", "%s", k.Phase)
	}
	t.line("generation", "%d", k.Generation)
	if k.Key != nil {
		t.line("current key", "%s", keyLine(*k.Key, r, t.now))
	}
	if k.Coming != nil {
		t.line("coming key", "%s", keyLine(*k.Coming, r, t.now))
	}
	for _, old := range k.Old {
		t.line("old key", "%s", keyLine(old, r, t.now))
	}
	for _, s := range k.Stranded {
		t.line("stranded key", "%s; it is of another account or API, and cannot be revoked with this credential", keyLine(s, r, t.now))
	}
	if len(k.Files) == 0 {
		for _, o := range k.Outputs {
			t.line("output", "%s", o)
		}
	}
	for _, f := range k.Files {
		t.line("output", "%s", f)
	}
	if k.Key != nil && r.Keys != nil && r.State == probe.Running {
		t.at("extension", k.Schedule.ExtendAt)
		t.at("replacement", k.Schedule.RotateAt)
		t.at("check", k.Schedule.CheckAt)
	}
	for _, c := range k.Complaints(t.now) {
		t.line("trouble", "%s", c.Text)
		t.line("what helps", "%s", c.Fix)
	}
	if c := k.Counts; r.State == probe.Running {
		t.line("since start", "minted %d, extended %d, replaced %d, revoked %d", c.Mints, c.Extensions, c.Rotations, c.Revocations)
	}
}

// keyLine is a key in one line. Its expiry is by the server's clock.
func keyLine(k agent.KeyStatus, r probe.Report, now time.Time) string {
	id := "unknown"
	if k.ID != 0 {
		id = fmt.Sprint(k.ID)
	}
	text := fmt.Sprintf("%s (id %s, %s)", k.Name, id, k.Kind)
	left := k.Expiry.Sub(now) + time.Duration(r.Ahead)
	switch {
	case k.Dead:
		return text + ", which is dead: balena refuses it"
	case left <= 0:
		return fmt.Sprintf("%s, which expired %s ago, at %s", text, words.Human(-left), k.Expiry.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("%s, which expires in %s, at %s", text, words.Human(left), k.Expiry.UTC().Format(time.RFC3339))
}
