package agent

import (
	"sync/atomic"
	"time"

	"github.com/balena-injector/injector/key"
)

// Status is what an agent holds and plans, for people and probes. It has no secret.
type Status struct {
	Phase      string      `json:"phase"`  // starting, running, stopping, handing over
	Ready      bool        `json:"ready"`  // an app can rely on the outputs
	Reason     string      `json:"reason"` // why it is not ready; empty if it is
	Generation int         `json:"generation"`
	Key        *KeyStatus  `json:"key,omitempty"`
	Coming     *KeyStatus  `json:"coming,omitempty"` // a successor on its way
	Old        []KeyStatus `json:"old,omitempty"`    // in their overlap, or waiting to be revoked
	Schedule   Schedule    `json:"schedule"`
	Trouble    []Trouble   `json:"trouble,omitempty"`
	Counts     Counts      `json:"counts"`
}

// KeyStatus is one key.
type KeyStatus struct {
	Name     string    `json:"name"`
	ID       int64     `json:"id,omitempty"` // 0: not known
	Kind     key.Kind  `json:"kind"`
	Expiry   time.Time `json:"expiry"`  // by the server's clock
	Created  time.Time `json:"created"` // by the server's clock
	Verified bool      `json:"verified"`
	Dead     bool      `json:"dead,omitempty"`
	RevokeAt time.Time `json:"revoke_at,omitzero"`
}

// Schedule is what comes next, by the local clock. Zero times: not planned.
type Schedule struct {
	ExtendAt  time.Time `json:"extend_at,omitzero"`
	RotateAt  time.Time `json:"rotate_at,omitzero"`
	CheckAt   time.Time `json:"check_at,omitzero"`
	TendAt    time.Time `json:"session_at,omitzero"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // how long an outage is survived
}

// Trouble is a step that fails.
type Trouble struct {
	Step     string    `json:"step"`
	Class    string    `json:"class"`
	Error    string    `json:"error"`
	Failures int       `json:"failures"`
	Since    time.Time `json:"since"`
	NextTry  time.Time `json:"next_try"`
	Fix      string    `json:"fix,omitempty"`
}

// Counts is what an agent has done since it started.
type Counts struct {
	Mints       int64 `json:"mints"`
	Extensions  int64 `json:"extensions"`
	Rotations   int64 `json:"rotations"`
	Revocations int64 `json:"revocations"`
	Unrevoked   int64 `json:"unrevoked"`
}

type counters struct{ mints, extensions, rotations, revocations, unrevoked atomic.Int64 }

func (c *counters) read() Counts {
	return Counts{c.mints.Load(), c.extensions.Load(), c.rotations.Load(), c.revocations.Load(), c.unrevoked.Load()}
}

// snapshot is a Status with what is needed to judge it later. It never changes.
type snapshot struct {
	Status
	Reason   string // without looking at the clock or the files
	Phase    string
	shown    *key.Publication
	deadline instant
}

// Status returns what the agent held when its loop last turned, and whether it is ready now.
func (a *Agent) Status() Status {
	s := a.status.Load()
	status := s.Status
	status.Phase = s.Phase
	status.Ready, status.Reason = a.Ready()
	status.Counts = a.counters.read()
	return status
}

// Ready tells whether an app can rely on the outputs: they are the key that the server accepted
// last, and it has life left. Otherwise it says why not.
func (a *Agent) Ready() (bool, string) {
	s := a.status.Load()
	switch {
	case s.Reason != "":
		return false, s.Reason
	case s.shown == nil:
		return false, "no key yet"
	case until(a.clock.now(), s.deadline) <= 0:
		return false, "the key has expired"
	}
	if err := a.cfg.Publisher.Intact(*s.shown); err != nil {
		return false, err.Error()
	}
	return true, ""
}

// maxSilence is how long the loop may take for one turn: several requests that all time out.
const maxSilence = 5 * time.Minute

// Alive reports whether the agent's loop still turns, or the agent is at its orderly end, which has a time of its own.
// It never depends on the API.
func (a *Agent) Alive() bool {
	return a.stopped.Load() != 0 || time.Since(a.clock.start)-time.Duration(a.beat.Load()) < maxSilence
}

// publishStatus makes a new snapshot.
func (a *Agent) publishStatus(phase string) {
	now := a.clock.now()
	s := &snapshot{Phase: phase, Reason: a.unreadyReason(phase)}
	s.Generation = a.journal.Generation
	if c := a.current; c != nil {
		k := c.status()
		s.Key = &k
		p := a.publication(c)
		s.shown, s.deadline = &p, c.deadline
		s.Schedule = a.schedule(now)
	}
	if a.successor != nil {
		k := a.successor.status()
		s.Coming = &k
	}
	for _, h := range a.retiring {
		s.Old = append(s.Old, h.status())
	}
	s.Trouble = a.troubles(now)
	a.status.Store(s)
}

func (a *Agent) unreadyReason(phase string) string {
	switch c := a.current; {
	case phase != "running":
		return phase
	case c == nil && a.waiting != "":
		return a.waiting
	case c == nil:
		return "no key yet"
	case c.dead:
		return "the key is dead and not replaced yet"
	case !c.verified:
		return "the adopted key is not verified yet"
	}
	return ""
}

func (a *Agent) schedule(now instant) Schedule {
	c := a.current
	s := Schedule{CheckAt: a.nextCheck.wall, ExpiresAt: c.deadline.wall}
	if !a.tendDone {
		s.TendAt = a.nextTend.wall
	}
	switch {
	case c.dead:
		s.RotateAt = now.wall
		return s
	case c.stuck || c.unlisted:
		s.RotateAt = a.extendAt(c).wall
		return s
	}
	s.ExtendAt = a.extendAt(c).wall
	if a.cfg.Times.MaxTTL > 0 {
		// The first extension that would make it too old.
		at, age := a.extendAt(c), a.age(c)+max(0, until(now, a.extendAt(c)))
		step := a.cfg.Times.TTL - a.cfg.Times.lead(c.jitter)
		more := a.cfg.Times.extensionsLeft(age, step)
		s.RotateAt = at.add(time.Duration(more) * step).wall
		if more == 0 {
			s.ExtendAt = time.Time{}
		}
	}
	return s
}

func (a *Agent) troubles(now instant) []Trouble {
	var list []Trouble
	for s, row := range a.steps {
		t := Trouble{Step: string(s.kind), Class: row.class.String(), Error: row.err.Error(), Failures: row.failures,
			Since: row.since.wall, NextTry: now.wall.Add(a.due(s.kind, row) - now.mono)}
		if a.cfg.Advise != nil {
			t.Fix = a.cfg.Advise(row.err)
		}
		list = append(list, t)
	}
	return list
}

func (h *holding) status() KeyStatus {
	s := KeyStatus{Name: h.rec.Name, ID: h.rec.ID, Kind: h.rec.Kind, Expiry: h.rec.Expiry, Created: h.rec.Created, Verified: h.verified, Dead: h.dead}
	if h.rec.State == retiring {
		s.RevokeAt = h.retireAt.wall
	}
	return s
}
