package sidecar

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/rootdir"
	"github.com/balena-injector/injector/internal/words"
	"github.com/balena-injector/injector/render"
)

// AtRest is the report of an injector that does not answer, from what lies in its state directory.
func AtRest(at config.Place, why error) (probe.Report, error) {
	if !errors.Is(why, probe.ErrNoAgent) && !errors.Is(why, probe.ErrSilent) {
		return probe.Report{}, why
	}
	rest, err := agent.Look(at.Dir)
	r := probe.Report{State: probe.Absent, StateDir: at.Dir}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.Reason, r.Fix = "no injector is running here, and none has left anything: there is no state directory "+at.Dir, startIt
		if others := UsedPlaces(); len(others) > 0 && !at.Explicit {
			r.Fix = "execs have their state in " + strings.Join(others, ", ") + ": set INJECTOR_STATE_DIR to one of them"
		}
		return r, nil
	case err != nil && len(rest.Keys) == 0:
		return r, fmt.Errorf("no injector answers here, and its state directory %s cannot be read: %w", at.Dir, rootdir.WithoutPath(err))
	}
	if last := rest.Last; last != nil {
		r.PID, r.Command, r.Version, r.Started, r.Ended = last.PID, last.Command, last.Version, last.Started, last.Ended
	}
	for _, k := range rest.Keys {
		r.Keys = append(r.Keys, restingKey(k))
		r.Ahead, r.API = words.Duration(k.Ahead), k.URL
	}
	r.State = stateOf(rest)
	r.Reason, r.Fix = tellRest(r, rest)
	if rest.Broken != nil {
		r.Reason += fmt.Sprintf(". A journal cannot be read, and keys that it names are not known: %v", rest.Broken)
	}
	r = r.For(at.Outputs)
	for i := range r.Keys {
		r.Keys[i].Reason = r.Reason
	}
	return r, nil
}

const startIt = "start it, or set INJECTOR_OUTPUT, INJECTOR_TEMPLATES, INJECTOR_KEYS or INJECTOR_STATE_DIR as it has them"

// stateOf is what became of the last injector.
func stateOf(rest agent.Rest) probe.State {
	switch last := rest.Last; {
	case rest.Held:
		return probe.Silent
	case last == nil && len(rest.Keys) == 0 && rest.Broken == nil:
		return probe.Absent
	case last == nil || last.End == "":
		return probe.Crashed
	case last.End == agent.EndHandedOver:
		return probe.HandedOver
	case last.End == agent.EndLeft:
		return probe.Stopped
	case last.Error != "":
		return probe.Failed
	case last.End == agent.EndPublished:
		return probe.Published
	}
	return probe.Stopped
}

// tellRest says what became of an injector that does not answer, and what would help.
func tellRest(r probe.Report, rest agent.Rest) (reason, fix string) {
	who := "the last one"
	if r.Command != "" {
		who = fmt.Sprintf("`injector %s` (pid %d, started %s)", r.Command, r.PID, r.Started.UTC().Format(time.RFC3339))
	}
	adopts := false
	for _, k := range rest.Keys {
		adopts = adopts || !k.Secret.IsZero() && k.Key != nil && time.Now().Add(-k.Ahead).Before(k.Key.Expiry)
	}
	switch r.State {
	case probe.Silent:
		return who + " uses this state directory and does not answer: it is stopped, frozen or about to end",
			"if it stays so, end it with SIGKILL and start it again: it adopts its key"
	case probe.Crashed:
		reason = who + " was killed or crashed"
	case probe.HandedOver:
		reason = who + " has handed over to the next start"
	case probe.Published:
		reason = who + " has done its work, and `injector run` has not begun"
	case probe.Failed:
		reason = who + " failed: " + rest.Last.Error
	case probe.Stopped:
		reason = who + " was stopped"
		if r.Command == "revoke" {
			reason = who + " was the last to use this state directory"
		}
		if rest.Last.End == agent.EndLeft {
			reason += ", and left keys that could have been revoked"
		}
	default:
		reason = "none has used this state directory yet"
	}
	reason = "no injector is running here: " + reason
	switch {
	case keysOf(r) == 0 && rest.Broken != nil:
		return reason, "start it again: it sets the journal aside; a key that it named dies at its expiry"
	case keysOf(r) == 0 && r.State == probe.Absent:
		return reason, startIt
	case keysOf(r) == 0:
		return reason + ". It has left no key", "start it"
	case adopts && r.State == probe.Published:
		return reason, "start `injector run`: it adopts the key" + ending(rest)
	case adopts:
		return reason, "start it again: it adopts the key" + ending(rest)
	}
	return reason, "start it again: it mints another key and revokes what is left; `injector revoke` does that alone"
}

// ending is what else could be done about the keys of a journal.
func ending(rest agent.Rest) string {
	for _, k := range rest.Keys {
		if k.Key != nil && k.Key.Forever {
			return "; nothing but its expiry ends it"
		}
	}
	return "; `injector revoke` ends it"
}

// keysOf counts the keys that a report names.
func keysOf(r probe.Report) (n int) {
	for _, k := range r.Keys {
		n += k.Live
	}
	return n
}

// restingKey is the report of one journal.
func restingKey(rest agent.RestingKey) probe.KeyReport {
	k := probe.KeyReport{Name: rest.Slot, Status: rest.Status, Outputs: rest.Outputs}
	for _, path := range rest.Outputs {
		k.Files = append(k.Files, path+" "+lies(path, rest))
	}
	return k
}

// lies says what lies at an output's path.
func lies(path string, rest agent.RestingKey) string {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "is not there"
	case err != nil:
		return rootdir.WithoutPath(err).Error()
	case !info.Mode().IsRegular():
		return "is not a file of the injector's"
	}
	about, err := render.ReadInfo(path)
	text, _ := rootdir.ReadFile(path, maxShown)
	left := time.Duration(about.SecondsLeft)*time.Second - render.Age(path, time.Now())
	switch {
	case err != nil:
		return "is there, without the .json that says of which key"
	case rest.Key == nil || about.Name != rest.Key.Name:
		return "is there, and its .json names another key" // an app may have written anything there
	case left <= 0:
		return "is there, and its .json names this key, which has expired"
	case rest.Secret.IsZero():
		return "is there, and its .json names this key; apps can use it for " + words.Human(left)
	case !bytes.Contains(text, []byte(rest.Secret.Reveal())): // a template may write it in another form
		return "is there, and its .json names this key, but the token is not in it as it is"
	}
	return "is there, and holds this key; apps can use it for " + words.Human(left)
}

// maxShown is how much of an output is read to find the token in it.
const maxShown = 1 << 20
