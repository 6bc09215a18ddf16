package agent

import (
	"fmt"
	"time"

	"github.com/balena-injector/injector/internal/words"
	"github.com/balena-injector/injector/key"
)

// Status is what an agent holds and plans, for people and probes. It has no secret.
type Status struct {
	Phase      string      `json:"phase"`              // starting, running, stopping, handing over
	Ready      bool        `json:"ready"`              // an app can rely on the outputs
	Reason     string      `json:"reason"`             // why it is not ready, and the failure that keeps it so; empty if it is
	Generation int         `json:"generation"`         // 1 for the first key, one more for each that replaced it
	Key        *KeyStatus  `json:"current,omitempty"`  // what the app reads
	Coming     *KeyStatus  `json:"coming,omitempty"`   // a successor on its way
	Old        []KeyStatus `json:"old,omitempty"`      // in their overlap, or waiting to be revoked
	Stranded   []KeyStatus `json:"stranded,omitempty"` // of another account or API: nothing but their expiry ends them
	Live       int         `json:"live"`               // keys that may be live at balena, the stranded ones not counted
	UserID     int64       `json:"user_id,omitempty"`  // whose keys they are; 0: not known yet
	Schedule   Schedule    `json:"schedule"`           // what comes next
	Trouble    []Trouble   `json:"trouble,omitempty"`  // what the app's token depends on first
	Counts     Counts      `json:"counts,omitzero"`    // what was done since the start

	// LastSuccess is when a step that asks the server succeeded last, by the local clock; zero: not since the start.
	LastSuccess time.Time `json:"last_success,omitzero"`
}

// KeyStatus is one key.
type KeyStatus struct {
	Name     string    `json:"name"`                  // at balena
	ID       int64     `json:"id,omitempty"`          // 0: not known
	Kind     key.Kind  `json:"kind"`                  // user, fleet or device
	Expiry   time.Time `json:"expiry"`                // by the server's clock
	Created  time.Time `json:"created"`               // by the server's clock
	Verified bool      `json:"verified"`              // the server has accepted it
	Dead     bool      `json:"dead,omitempty"`        // the server refuses it beyond doubt
	Forever  bool      `json:"unrevocable,omitempty"` // nothing but its expiry ends it
	RevokeAt time.Time `json:"revoke_at,omitzero"`    // by the local clock; zero: not planned
}

// Schedule is what comes next, by the local clock: what is planned, or the next try of what failed. Zero times: not
// planned.
type Schedule struct {
	ExtendAt  time.Time `json:"extend_at,omitzero"`  // when the expiry is moved
	RotateAt  time.Time `json:"rotate_at,omitzero"`  // when another key replaces it
	CheckAt   time.Time `json:"check_at,omitzero"`   // when the server is asked whether it lives
	TendAt    time.Time `json:"session_at,omitzero"` // when the session is looked after
	ExpiresAt time.Time `json:"expires_at,omitzero"` // how long an outage is survived; zero for a dead key
}

// Trouble is a step that failed at its last try.
type Trouble struct {
	Step     string    `json:"step"`          // what fails, as it follows "could not"
	Class    string    `json:"class"`         // of the failure, as in the metrics
	Error    string    `json:"error"`         // of the last try
	Failures int       `json:"failures"`      // in a row
	Since    time.Time `json:"since"`         // when the first of them was, by the local clock
	NextTry  time.Time `json:"next_try"`      // by the local clock
	Fix      string    `json:"fix,omitempty"` // what a person could do; empty: nothing, or the error says it
	urgent   bool
}

// Text says what fails, since when, and when the next try is, as seen at the local time now. It goes on after "it".
func (t Trouble) Text(now time.Time) string {
	tries := ""
	if t.Failures > 1 {
		tries = fmt.Sprintf(", tried %d times since %s", t.Failures, t.Since.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("could not %s (%s)%s; the next try is %s", t.Step, t.Error, tries, words.In(t.NextTry.Sub(now)))
}

// Counts is what an agent has done since it started.
type Counts struct {
	Mints       int64 `json:"mints"`       // keys made
	Extensions  int64 `json:"extensions"`  // expiries moved
	Rotations   int64 `json:"rotations"`   // keys replaced
	Revocations int64 `json:"revocations"` // keys ended
	Unrevoked   int64 `json:"unrevoked"`   // keys that could have been revoked and were left to expire, earlier starts included

	// Failures is how many tries of each step have failed; steps that never did are not in it. Do not change it.
	Failures map[string]int64 `json:"failures,omitempty"`
}

// Status returns what the agent held when its loop last turned, and whether it is ready now.
func (a *Agent) Status() Status {
	status := a.status.Load().Status
	status.Ready, status.Reason = a.Ready()
	failures := status.Counts.Failures
	status.Counts = a.counters.read()
	status.Counts.Failures = failures
	return status
}

// Ready reports whether an app can rely on the outputs: they are the key that the server accepted
// last, and it has life left. Otherwise it says why not, and what fails.
func (a *Agent) Ready() (bool, string) {
	s := a.status.Load()
	now := a.clock.now()
	if why := a.unready(s, now); why != "" {
		return false, s.because(why, now.wall)
	}
	return true, ""
}

// because adds to the reason for which an app cannot rely on its outputs what fails, and when it is tried again.
func (s Status) because(why string, now time.Time) string {
	if len(s.Trouble) > 0 && s.Trouble[0].urgent && s.Phase == "running" {
		why += ": it " + s.Trouble[0].Text(now)
	}
	return why
}

// Damaged returns the status of an agent whose outputs are found to be not what it published, before it sees that itself.
func (s Status) Damaged(why error, now time.Time) Status {
	if s.Ready {
		s.Ready, s.Reason = false, s.because(why.Error(), now)
	}
	return s
}

// unready says in a few words why the app cannot rely on its outputs; "" if it can.
func (a *Agent) unready(s *snapshot, now instant) string {
	switch {
	case s.reason != "":
		return s.reason
	case s.shown == nil:
		return "there is no key yet"
	case until(now, s.deadline) <= 0:
		return "the key has expired"
	case s.damage != nil:
		return s.damage.Error()
	}
	return ""
}

// maxSilence is how long the loop may take for one turn: several requests that all time out.
const maxSilence = 5 * time.Minute

// Alive reports whether the agent's loop still turns, or the agent is at its orderly end, which has a time of its own.
// It never depends on the API.
func (a *Agent) Alive() bool {
	awake := max(a.beat.Load(), a.restsUntil.Load())
	return a.stopped.Load() != 0 || time.Since(a.clock.start)-time.Duration(awake) < maxSilence
}
