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
	"github.com/balena-injector/injector/internal/statedir"
	"github.com/balena-injector/injector/internal/words"
	"github.com/balena-injector/injector/render"
)

// AtRest is the report of an injector that does not answer, from what lies in its state directory.
func AtRest(at config.Place, why error) (probe.Report, error) {
	if !errors.Is(why, probe.ErrNoAgent) && !errors.Is(why, probe.ErrSilent) {
		return probe.Report{}, why
	}
	rest, err := lookAt(at.Dir)
	r := probe.Report{State: probe.Absent, StateDir: at.Dir}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.Reason, r.Fix = "no injector is running here, and none has left anything: there is no state directory "+at.Dir, startIt
		if others := UsedPlaces(); len(others) > 0 && !at.Explicit {
			r.Fix = "execs have their state in " + strings.Join(others, ", ") + ": set INJECTOR_STATE_DIR to one of them"
		}
		return r, nil
	case err != nil && len(rest.keys) == 0:
		return r, fmt.Errorf("no injector answers here, and its state directory %s cannot be read: %w", at.Dir, rootdir.WithoutPath(err))
	}
	if last := rest.last; last != nil {
		r.PID, r.Command, r.Version, r.Started, r.Ended = last.PID, last.Command, last.Version, last.Started, last.Ended
	}
	for _, k := range rest.keys {
		r.Keys = append(r.Keys, k.report())
		r.Ahead, r.API = words.Seconds(k.Ahead), k.URL
	}
	r.State = stateOf(rest)
	r.Reason, r.Fix = tellRest(r, rest)
	if rest.broken != nil {
		r.Reason += fmt.Sprintf(". A journal cannot be read, and keys that it names are not known: %v", rest.broken)
	}
	r = r.For(at.Outputs)
	for i := range r.Keys {
		r.Keys[i].Reason = r.Reason
	}
	return r, nil
}

// resting is what lies in a state directory, as people want to know it.
type resting struct {
	held   bool              // somebody has the lock all the same
	last   *statedir.Process // nil: not known
	broken error             // why a journal cannot be read; nil if all can
	keys   []restingKey
}

// restingKey is what the journal of one slot says.
type restingKey struct {
	slot string
	agent.Resting
}

// lookAt reads a state directory as it lies there, and changes nothing.
func lookAt(dir string) (resting, error) {
	left, err := statedir.Look(dir)
	r := resting{held: left.Held, last: left.Last}
	for _, j := range left.Journals {
		rest, e := agent.Resting{}, j.Err
		if e == nil {
			rest, e = agent.ReadJournal(j.Data)
		}
		if e != nil {
			r.broken = errors.Join(r.broken, fmt.Errorf("%s: %w", j.Path, e))
			continue
		}
		r.keys = append(r.keys, restingKey{j.Slot, rest})
	}
	return r, err
}

const startIt = "start it, or set INJECTOR_OUTPUT, INJECTOR_TEMPLATES, INJECTOR_KEYS or INJECTOR_STATE_DIR as it has them"

// stateOf is what became of the last injector.
func stateOf(rest resting) probe.State {
	switch last := rest.last; {
	case rest.held:
		return probe.Silent
	case last == nil && len(rest.keys) == 0 && rest.broken == nil:
		return probe.Absent
	case last == nil || last.End == "":
		return probe.Crashed
	case last.End == statedir.EndHandedOver:
		return probe.HandedOver
	case last.End == statedir.EndLeft:
		return probe.Stopped
	case last.Error != "":
		return probe.Failed
	case last.End == statedir.EndPublished:
		return probe.Published
	}
	return probe.Stopped
}

// tellRest says what became of an injector that does not answer, and what would help.
func tellRest(r probe.Report, rest resting) (reason, fix string) {
	who := "the last one"
	if r.Command != "" {
		who = fmt.Sprintf("`injector %s` (pid %d, started %s)", r.Command, r.PID, r.Started.UTC().Format(time.RFC3339))
	}
	adopts := false
	for _, k := range rest.keys {
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
		reason = who + " failed: " + rest.last.Error
	case probe.Stopped:
		reason = who + " was stopped"
		if r.Command == "revoke" {
			reason = who + " was the last to use this state directory"
		}
		if rest.last.End == statedir.EndLeft {
			reason += ", and left keys that could have been revoked"
		}
	default:
		reason = "none has used this state directory yet"
	}
	reason = "no injector is running here: " + reason
	switch {
	case keysOf(r) == 0 && rest.broken != nil:
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
func ending(rest resting) string {
	for _, k := range rest.keys {
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

// report is the report of one journal.
func (rest restingKey) report() probe.KeyReport {
	k := probe.KeyReport{Name: rest.slot, Status: rest.Status, Outputs: rest.Outputs}
	for _, path := range rest.Outputs {
		k.Files = append(k.Files, path+" "+lies(path, rest))
	}
	return k
}

// lies says what lies at an output's path.
func lies(path string, rest restingKey) string {
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
