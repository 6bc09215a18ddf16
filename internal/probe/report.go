package probe

import (
	"fmt"
	"strings"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/words"
)

// State is what is known of the injector of a state directory.
type State string

const (
	Running    State = "running"     // it answers
	Silent     State = "silent"      // it has the state directory and does not answer: stopped, frozen or stuck
	Crashed    State = "crashed"     // it was killed, or crashed
	HandedOver State = "handed over" // it left its key to the next start
	Published  State = "published"   // it was init, and left its key to run
	Stopped    State = "stopped"     // it ended in order
	Failed     State = "failed"      // it ended with an error
	Absent     State = "absent"      // none was ever here
	Another    State = "another's"   // one runs here, and keeps other outputs than those that were asked about
)

// Report is everything about a process and its keys: what a running injector tells, or what its state directory says
// when none answers. Status, explain, healthcheck and the probes all say what is in it.
type Report struct {
	// running, silent, crashed, handed over, published (init left it to run), stopped, failed, absent, another's
	State    State     `json:"state"`
	Ready    bool      `json:"ready"`                             // apps can rely on every key
	Reason   string    `json:"reason"`                            // why not; empty if they can
	Fix      string    `json:"fix,omitempty"`                     // what would help; empty: nothing, or the reason says it
	StateDir string    `json:"state_directory"`                   // its path
	Others   []string  `json:"other_state_directories,omitempty"` // of execs beside it that chose theirs themselves
	PID      int       `json:"pid,omitempty"`                     // 0 or absent: no process is known
	Version  string    `json:"version,omitempty"`                 // of the program
	Revision string    `json:"revision,omitempty"`                // of the source that it was built from; empty: not known
	Command  string    `json:"command,omitempty"`                 // init, run, exec, …
	Started  time.Time `json:"started,omitzero"`                  // when the process did
	Ended    time.Time `json:"ended,omitzero"`                    // zero: it runs, or nobody knows
	// until then a stop leaves the keys to the next start; zero: it revokes
	HandsOverUntil time.Time     `json:"hands_over_until,omitzero"`
	API            string        `json:"api,omitempty"`                // its URL
	Listen         string        `json:"listen,omitempty"`             // the TCP address for probes; empty: none
	Ahead          words.Seconds `json:"clock_ahead_seconds,omitzero"` // how far the local clock is ahead of the server's
	Restarts       *int64        `json:"command_restarts,omitempty"`   // under exec: how often its command was started again
	GoVersion      string        `json:"go_version,omitempty"`         // what it was built with
	Keys           []KeyReport   `json:"keys"`                         // one, or one of each name in INJECTOR_KEYS
}

// KeyReport is everything about one key.
type KeyReport struct {
	Name string `json:"key,omitempty"` // in INJECTOR_KEYS; empty: the only one
	agent.Status
	Outputs       []string      `json:"outputs"`                         // the paths that apps read
	Files         []string      `json:"files,omitempty"`                 // of one that does not answer: what lies at the outputs' paths
	Login         string        `json:"login,omitempty"`                 // the user name; empty without one
	SessionExpiry time.Time     `json:"session_expires,omitzero"`        // by the server's clock
	TTL           words.Seconds `json:"ttl_seconds,omitzero"`            // how far ahead expiries are set
	MaxTTL        words.Seconds `json:"max_ttl_seconds,omitzero"`        // how old a key may get; zero: as old as it likes
	Overlap       words.Seconds `json:"overlap_seconds,omitzero"`        // how long a replaced key lives on
	Check         words.Seconds `json:"check_interval_seconds,omitzero"` // how often the server is asked whether the key lives
	Untold        []string      `json:"untold,omitempty"`                // notifications that failed at their last try, and why
	Told          *Told         `json:"told,omitempty"`                  // nil: nobody is to be told
	// Credential says why the credential did not work when it was used or read last; nil if it did.
	Credential *Credential `json:"credential,omitempty"`
}

// WrongClock is how far off the local clock may be without a word about it.
const WrongClock = time.Minute

// Told counts the tries to notify somebody of this key.
type Told struct {
	Succeeded int64 `json:"succeeded"` // tries that arrived
	Failed    int64 `json:"failed"`    // tries that did not
}

// Credential is what is wrong with a credential.
type Credential struct {
	Error string `json:"error"`         // why it does not work
	Fix   string `json:"fix,omitempty"` // what would help; empty: the error says it
}

// Line says in one line whether apps can rely on all keys, and what fails, as docker inspect and Kubernetes' events
// show it.
func (r Report) Line(now time.Time) string {
	if !r.Ready {
		line := "not ready: " + r.Reason
		if r.Fix != "" {
			line += ". What helps: " + r.Fix
		}
		return oneLine(line)
	}
	for _, k := range r.Keys {
		for _, c := range k.Complaints(now) {
			return oneLine("ready, but " + k.named(c.String()))
		}
	}
	return "ready"
}

// Whole returns r with empty lists in the place of missing ones, which JSON would call null.
func (r Report) Whole() Report {
	r.Keys = append([]KeyReport{}, r.Keys...)
	for i := range r.Keys {
		if r.Keys[i].Outputs == nil {
			r.Keys[i].Outputs = []string{}
		}
	}
	return r
}

func (k KeyReport) named(text string) string {
	if k.Name == "" {
		return text
	}
	return k.Name + ": " + text
}

// Complaint is something that goes wrong with a key.
type Complaint struct {
	Text string // with the next try
	Fix  string // what would help; empty: nothing, or the text says it
}

// String is both in one.
func (c Complaint) String() string {
	if c.Fix == "" {
		return c.Text
	}
	return c.Text + ". What helps: " + c.Fix
}

// Complaints are what goes wrong with a key, the worst first.
func (k KeyReport) Complaints(now time.Time) []Complaint {
	var list []Complaint
	for _, t := range k.Trouble {
		if !strings.Contains(k.Reason, t.Error) { // else it has been said why the key is not ready
			list = append(list, Complaint{"it " + t.Text(now), t.Fix})
		}
	}
	if c := k.Credential; c != nil && !k.complains(c.Error) {
		list = append(list, Complaint{"the next login will fail: " + c.Error, c.Fix})
	}
	for _, u := range k.Untold {
		list = append(list, Complaint{Text: "not notified of the key: " + u})
	}
	return list
}

// complains reports whether a step failed with that error, which need not be said twice.
func (k KeyReport) complains(text string) bool {
	for _, t := range k.Trouble {
		if t.Error == text {
			return true
		}
	}
	return false
}

// Judge sets Ready, Reason and Fix to what the keys say: the first that is not ready counts.
func (r *Report) Judge() {
	r.Ready, r.Reason, r.Fix = true, "", ""
	for _, k := range r.Keys {
		if k.Ready {
			continue
		}
		r.Ready, r.Reason = false, k.named(k.Reason)
		if k.Phase != "running" {
			return // nothing that fails has to do with it
		}
		for _, t := range k.Trouble {
			if r.Fix == "" {
				r.Fix = t.Fix
			}
		}
		if r.Fix == "" && k.Credential != nil {
			r.Fix = k.Credential.Fix
		}
		return
	}
}

// For makes r the report to somebody who asks about those outputs: this process may not keep one of them, since two
// injectors can share a state directory, though not at the same time.
func (r Report) For(outputs []string) Report {
	kept := map[string]bool{}
	var paths []string
	for _, k := range r.Keys {
		for _, o := range k.Outputs {
			kept[o] = true
			paths = append(paths, o)
		}
	}
	for _, o := range outputs {
		switch {
		case kept[o] || len(paths) == 0:
			continue
		case r.State == Running:
			r.State, r.Ready = Another, false
			r.Reason = fmt.Sprintf("the injector that uses this state directory keeps %s, and not %s", strings.Join(paths, ", "), o)
			r.Fix = OneEach
		default:
			r.Reason += fmt.Sprintf("; it kept %s, and not %s", strings.Join(paths, ", "), o)
		}
		break
	}
	return r
}

// OneEach is what helps where two injectors want one state directory.
const OneEach = "if it is meant to be the same injector, give both the same INJECTOR_OUTPUT, INJECTOR_TEMPLATES and INJECTOR_KEYS; " +
	"if not, give this one an INJECTOR_OUTPUT and an INJECTOR_STATE_DIR of its own"

// oneLine joins the lines of a text.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
