package agent

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/balena-injector/injector/key"
)

// snapshot is a Status with what is needed to judge it later. It never changes.
type snapshot struct {
	Status
	reason   string // without looking at the clock or the files
	shown    *key.Publication
	damage   error // of the outputs, when they were looked at last
	deadline instant
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
	s.Counts.Failures, s.LastSuccess = a.failures, a.lastSuccess
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
	if c.health.dead() && c.health != deadUnsettled {
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
	if times := a.timesOf(c); times.MaxTTL > 0 {
		// The first extension that would make it too old.
		at, age := a.extendAt(c), a.age(c)+max(0, until(now, a.extendAt(c)))
		step := a.cfg.Times.TTL - a.cfg.Times.lead(c.jitter)
		more := times.extensionsLeft(age, step)
		s.RotateAt = a.later(now, at.add(time.Duration(more)*step), draftKey, settleMint, verifyKey, publishKey)
		if more == 0 && !a.successorBlocked() {
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
		t := Trouble{
			Step:     string(s.kind),
			Class:    row.class.String(),
			Error:    row.err.Error(),
			Failures: row.failures,
			urgent:   s.kind.urgent(),
			Since:    row.since.wall,
			NextTry:  now.wall.Add(max(0, a.restIn(s.kind, row, now, a.pressed()))),
		}
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

type counters struct{ mints, extensions, rotations, revocations, unrevoked atomic.Int64 }

func (c *counters) read() Counts {
	return Counts{Mints: c.mints.Load(), Extensions: c.extensions.Load(), Rotations: c.rotations.Load(),
		Revocations: c.revocations.Load(), Unrevoked: c.unrevoked.Load()}
}
