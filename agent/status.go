package agent

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/balena-injector/injector/internal/words"
	"github.com/balena-injector/injector/key"
)

// Status is what an agent holds and plans, for people and probes. It has no secret.
type Status struct {
	Phase      string      `json:"phase"`  // starting, running, stopping, handing over
	Ready      bool        `json:"ready"`  // an app can rely on the outputs
	Reason     string      `json:"reason"` // why it is not ready, and the failure that keeps it so; empty if it is
	Generation int         `json:"generation"`
	Key        *KeyStatus  `json:"current,omitempty"`  // what the app reads
	Coming     *KeyStatus  `json:"coming,omitempty"`   // a successor on its way
	Old        []KeyStatus `json:"old,omitempty"`      // in their overlap, or waiting to be revoked
	Stranded   []KeyStatus `json:"stranded,omitempty"` // of another account or API: nothing but their expiry ends them
	Live       int         `json:"live"`               // keys that may be live at balena, the stranded ones not counted
	UserID     int64       `json:"user_id,omitempty"`  // whose keys they are; 0: not known yet
	Schedule   Schedule    `json:"schedule"`
	Trouble    []Trouble   `json:"trouble,omitempty"` // what the app's token depends on first
	Counts     Counts      `json:"counts,omitzero"`
}

// KeyStatus is one key.
type KeyStatus struct {
	Name     string    `json:"name"`         // at balena
	ID       int64     `json:"id,omitempty"` // 0: not known
	Kind     key.Kind  `json:"kind"`
	Expiry   time.Time `json:"expiry"`  // by the server's clock
	Created  time.Time `json:"created"` // by the server's clock
	Verified bool      `json:"verified"`
	Dead     bool      `json:"dead,omitempty"`        // the server refuses it beyond doubt
	Forever  bool      `json:"unrevocable,omitempty"` // nothing but its expiry ends it
	RevokeAt time.Time `json:"revoke_at,omitzero"`
}

// Schedule is what comes next, by the local clock: what is planned, or the next try of what failed. Zero times: not
// planned.
type Schedule struct {
	ExtendAt  time.Time `json:"extend_at,omitzero"`
	RotateAt  time.Time `json:"rotate_at,omitzero"`
	CheckAt   time.Time `json:"check_at,omitzero"`
	TendAt    time.Time `json:"session_at,omitzero"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // how long an outage is survived; zero for a dead key
}

// Trouble is a step that failed at its last try.
type Trouble struct {
	Step     string    `json:"step"`
	Class    string    `json:"class"`
	Error    string    `json:"error"`
	Failures int       `json:"failures"`
	Since    time.Time `json:"since"`
	NextTry  time.Time `json:"next_try"`
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
	reason   string // without looking at the clock or the files
	shown    *key.Publication
	damage   error // of the outputs, when they were looked at last
	deadline instant
}

// Status returns what the agent held when its loop last turned, and whether it is ready now.
func (a *Agent) Status() Status {
	status := a.status.Load().Status
	status.Ready, status.Reason = a.Ready()
	status.Counts = a.counters.read()
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
	return a.stopped.Load() != 0 || time.Since(a.clock.start)-time.Duration(a.beat.Load()) < maxSilence
}

// publishStatus makes a new snapshot.
func (a *Agent) publishStatus(phase string) {
	now := a.clock.now()
	s := &snapshot{reason: a.unreadyReason(phase)}
	s.Phase, s.Generation, s.UserID, s.Live = phase, a.journal.Generation, a.userID, a.liveKeys(now)
	if c := a.current; c != nil {
		k := c.status()
		s.Key = &k
		p := a.publication(c)
		s.shown, s.deadline, s.damage = &p, c.deadline, a.damage
		s.UserID = c.rec.UserID
	}
	s.Schedule = a.schedule(now)
	if a.successor != nil {
		k := a.successor.status()
		s.Coming = &k
	}
	for _, h := range a.retiring {
		k := h.status()
		if row := a.steps[step{revokeOld, h.rec.Name}]; row != nil {
			k.RevokeAt = now.wall.Add(max(0, a.restIn(revokeOld, row, now, a.pressed())))
		}
		s.Old = append(s.Old, k)
	}
	for _, h := range a.stranded {
		s.Stranded = append(s.Stranded, h.status())
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
		return "there is no key yet"
	case c.health.dead():
		return "the key is dead and not replaced yet"
	case c.health == doubted:
		return "the server refuses the key at the moment, and is asked again"
	case c.health != accepted && c.adopted && !c.said.has(saidAccepted):
		return "the adopted key is not verified yet"
	case c.health != accepted:
		return "the key is being verified again"
	}
	return ""
}

// schedule is what comes next: of a step that failed, its next try.
func (a *Agent) schedule(now instant) Schedule {
	var s Schedule
	c := a.current
	if c == nil || c.health.dead() {
		s.RotateAt = a.later(now, now.add(a.unplannedIn(now)), draftKey, settleMint, verifyKey, publishKey)
	}
	if c == nil && a.waiting != "" {
		s.RotateAt = a.waitsUntil
	}
	if c == nil {
		return s
	}
	if !a.tendDone {
		s.TendAt = a.later(now, a.nextTend, tendSession)
	}
	if c.health.dead() && c.health != deadListed {
		return s
	}
	s.CheckAt = a.later(now, a.nextCheck, checkKey, confirmKey)
	if c.health.dead() {
		return s
	}
	s.ExpiresAt = c.deadline.wall
	if c.limits.cannotExtend || c.limits.notListed {
		s.RotateAt = a.later(now, a.extendAt(c), draftKey, settleMint, verifyKey, publishKey)
		return s
	}
	planned := a.extendAt(c)
	if a.renewNow {
		planned = now
	}
	s.ExtendAt = a.later(now, planned, extendKey)
	if a.cfg.Times.MaxTTL > 0 {
		// The first extension that would make it too old.
		at, age := a.extendAt(c), a.age(c)+max(0, until(now, a.extendAt(c)))
		step := a.cfg.Times.TTL - a.cfg.Times.lead(c.jitter)
		more := a.cfg.Times.extensionsLeft(age, step)
		s.RotateAt = a.later(now, at.add(time.Duration(more)*step), draftKey, settleMint, verifyKey, publishKey)
		if more == 0 && !a.succession() {
			s.ExtendAt = time.Time{}
		}
	}
	return s
}

// later returns when a step is taken that is planned for a time: if it failed, at its next try.
func (a *Agent) later(now, planned instant, kinds ...kind) time.Time {
	at := planned.wall
	for _, k := range kinds {
		if row := a.steps[step{kind: k}]; row != nil {
			if next := now.wall.Add(max(0, a.restIn(k, row, now, a.pressed()))); next.After(at) {
				at = next
			}
		}
	}
	return at
}

// pressed reports whether steps that can wait have to, for the sake of urgent ones that fail.
func (a *Agent) pressed() bool { return a.struggling() && !a.calm() }

// troubles lists the steps that failed at their last try, those first that the app's token depends on. One that only
// waits for our own request budget has not failed.
func (a *Agent) troubles(now instant) []Trouble {
	var list []Trouble
	for s, row := range a.steps {
		if row.failures == 0 {
			continue
		}
		t := Trouble{Step: string(s.kind), Class: row.class.String(), Error: row.err.Error(), Failures: row.failures, urgent: s.kind.urgent(),
			Since: row.since.wall, NextTry: now.wall.Add(max(0, a.restIn(s.kind, row, now, a.pressed())))}
		if a.cfg.Advise != nil {
			t.Fix = a.cfg.Advise(row.err)
		}
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b Trouble) int {
		if a.urgent != b.urgent {
			return map[bool]int{true: -1, false: 1}[a.urgent]
		}
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Step, b.Step))
	})
	return list
}

func (h *holding) status() KeyStatus {
	s := KeyStatus{Name: h.rec.Name, ID: h.rec.ID, Kind: h.rec.Kind, Expiry: h.rec.Expiry, Created: h.rec.Created,
		Verified: h.health == accepted, Dead: h.health.dead(), Forever: h.limits.cannotRevoke || h.rec.Forever}
	if h.rec.State == retiring {
		s.RevokeAt = h.retireAt.wall
	}
	return s
}
