package agent

import (
	"context"
	"time"

	"github.com/balena-injector/injector/settle"
)

// kind of step, in words that follow "trying to".
type kind string

const (
	identifyAccount kind = "find out whose account it is"
	draftKey        kind = "prepare a new key"
	settleMint      kind = "mint the key"
	verifyKey       kind = "verify the new key"
	publishKey      kind = "publish the key"
	confirmKey      kind = "make sure that the server accepts the key"
	findKey         kind = "find the key's id"
	extendKey       kind = "extend the key"
	checkKey        kind = "check that the key lives"
	repairOutputs   kind = "write the outputs again"
	labelOutputs    kind = "bring expiry and id in the outputs up to date"
	rewriteJournal  kind = "write the journal"
	revokeOld       kind = "revoke an old key"
	tendSession     kind = "look after the session"
)

// step names a step; the key only where there can be several.
type step struct {
	kind kind
	name string
}

// task is a step that is or will be due.
type task struct {
	step
	in  time.Duration
	run func(context.Context) error
}

// next returns the first task that is due, or else the one that is due soonest, and how long until then; 0: now.
func (a *Agent) next(now instant) (task, time.Duration) {
	best := task{in: maxSleep}
	tasks := a.tasks(now)
	a.prune(tasks)
	pressed := a.pressed()
	for _, t := range tasks {
		if s := a.steps[t.step]; s != nil {
			t.in = max(t.in, a.restIn(t.kind, s, now, pressed))
		}
		if t.in <= 0 {
			return t, 0
		}
		if t.in < best.in {
			best = t
		}
	}
	return best, best.in
}

// restIn returns how long a step that failed is to rest yet. pressed reports that an urgent one fails, too.
func (a *Agent) restIn(k kind, s *streak, now instant, pressed bool) time.Duration {
	in := max(a.due(k, s)-now.mono, a.budgetIn(k, s, now))
	if pressed && !k.urgent() {
		in = max(in, s.last+patience-now.mono)
	}
	return in
}

// tasks lists what there is to do, the most urgent first.
func (a *Agent) tasks(now instant) []task {
	var list []task
	add := func(k kind, in time.Duration, run func(context.Context) error) {
		list = append(list, task{step{kind: k}, in, run})
	}
	if len(a.undecided) > 0 {
		add(identifyAccount, 0, a.identify)
		return list
	}
	if a.current != nil && a.lastCalling(now) {
		list = append(list, a.currentTasks(now)...) // an extension is one request; a successor is several
	}
	if a.successor != nil {
		list = append(list, a.successorTask())
	}
	if a.current != nil && !a.lastCalling(now) {
		list = append(list, a.currentTasks(now)...)
	}
	for _, h := range a.retiring {
		if !h.waits || a.current != nil {
			end := func(ctx context.Context) error { return a.revoke(ctx, h) }
			list = append(list, task{step{revokeOld, h.rec.Name}, a.retireIn(h, now), end})
		}
	}
	if a.unsaved {
		add(rewriteJournal, 0, func(context.Context) error { return a.save() })
	}
	if in, ok := a.mintIn(now); ok && !a.draining {
		add(draftKey, in, a.draft)
	}
	if !a.tendDone && (a.current != nil || a.successor != nil) {
		add(tendSession, until(now, a.nextTend), a.tend)
	}
	return list
}

// successorTask is the next step of the key that is on its way.
func (a *Agent) successorTask() task {
	switch s := a.successor; {
	case s.rec.State == minting:
		return task{step{kind: settleMint}, 0, a.settle}
	case s.health != accepted:
		return task{step{kind: verifyKey}, 0, a.verifyNew}
	}
	return task{step{kind: publishKey}, 0, a.publishNew}
}

// currentTasks lists what there is to do for the key that the app reads.
func (a *Agent) currentTasks(now instant) []task {
	var list []task
	add := func(k kind, in time.Duration, run func(context.Context) error) {
		list = append(list, task{step{kind: k}, in, run})
	}
	c := a.current
	switch {
	case c.health == deadUnsettled:
		if in := a.extendIn(c, now); a.shouldExtend(c, in) {
			add(extendKey, in, a.extend)
		}
		add(checkKey, until(now, a.nextCheck), a.check)
		return list
	case c.health.dead():
		return nil
	case c.health != accepted:
		// A server that does not answer the one may do the other. Around the expiry there is no budget to lose on
		// questions, but for a first one where the server's time is not known: the key may not be about to expire at all.
		in := a.extendIn(c, now)
		extendable := c.adopted && c.rec.ID != 0 && in <= 0
		if !extendable || !a.timed && !c.told.health || a.left(c, now) > a.cfg.Times.lastCalls()[0] {
			add(confirmKey, 0, a.check)
		}
		if extendable {
			add(extendKey, in, a.extend)
		}
		return list
	}
	if a.damage != nil && !a.shown {
		add(repairOutputs, a.repairIn(now), a.repair)
	}
	if a.unlabeled {
		add(labelOutputs, 0, a.label)
	}
	if c.rec.ID == 0 && !c.limits.notListed {
		add(findKey, 0, a.find)
	}
	if in := a.extendIn(c, now); a.shouldExtend(c, in) {
		add(extendKey, in, a.extend)
	}
	add(checkKey, until(now, a.nextCheck), a.check)
	return list
}

// repairIn spaces repairs: somebody may keep changing the outputs.
func (a *Agent) repairIn(now instant) time.Duration {
	if a.repairPause == 0 {
		return 0
	}
	return until(now, a.repaired.add(a.repairPause))
}

// extendIn returns how long it is until c must be extended or replaced.
func (a *Agent) extendIn(c *holding, now instant) time.Duration {
	if a.left(c, now) > a.cfg.Times.TTL+2*slack && !c.limits.cannotExtend {
		return 0 // its TTL is longer than the one configured now, or it never expires: bring the expiry in first
	}
	in := until(now, a.extendAt(c))
	if a.renewNow {
		in = min(in, 0)
	}
	if !c.vanishedAt.isZero() {
		in = max(in, until(now, c.vanishedAt.add(settle.Pause)))
	}
	return in
}

// shouldExtend reports whether c is to be extended rather than replaced. One that is too old is
// extended all the same while no successor can be made.
func (a *Agent) shouldExtend(c *holding, in time.Duration) bool {
	switch {
	case c.limits.cannotExtend:
		return c.rec.ID != 0 && in <= 0 && a.successorBlocked()
	case in > 0 || !a.cfg.Times.tooOld(a.age(c)):
		return true
	}
	return a.successorBlocked()
}

// successorBlocked reports whether a successor cannot be made now: a step towards it has failed, or two keys are live
// already.
func (a *Agent) successorBlocked() bool {
	for _, k := range []kind{draftKey, settleMint, verifyKey, publishKey} {
		if s := a.steps[step{kind: k}]; s != nil && s.failures > 0 {
			return true
		}
	}
	return a.successor == nil && a.liveKeys(a.clock.now()) >= 2
}

// mintIn returns how long it is until a new key must be made, and whether one will be.
func (a *Agent) mintIn(now instant) (time.Duration, bool) {
	c := a.current
	var in time.Duration
	switch {
	case a.successor != nil:
		return 0, false
	case c == nil, c.health.dead():
		in = a.unplannedIn(now)
	case c.health != accepted:
		return 0, false
	case c.limits.cannotExtend:
		in = a.extendIn(c, now)
	case c.late:
		in = 0
	case a.cfg.Times.tooOld(a.age(c) + max(0, a.extendIn(c, now))):
		in = a.extendIn(c, now)
	default:
		return 0, false
	}
	if in <= 0 && a.liveKeys(now) >= 2 {
		in = a.makeRoom(now)
	}
	return in, true
}

// unplannedIn spaces mints that nobody planned: at once, then ever further apart while keys die
// young. While the app has never had a key it is a minute at most.
func (a *Agent) unplannedIn(now instant) time.Duration {
	if !a.pace.any {
		return 0
	}
	gap := a.cfg.Times.replacementGap(a.pace.young)
	if a.current == nil {
		gap = min(gap, time.Minute)
	}
	return until(now, a.pace.last.add(gap))
}

// makeRoom ends an overlap early: a third key is made only when the oldest of two is gone. It returns how long to wait
// before asking again, maxSleep at most.
func (a *Agent) makeRoom(now instant) time.Duration {
	wait := maxSleep
	for _, h := range a.retiring {
		if !a.mayLive(h, now) {
			continue
		}
		if !h.limits.cannotRevoke && until(now, h.retireAt) > 0 && !h.waits {
			a.log.Info("ending the overlap early: another key is needed, and two are the limit", h.attrs()...)
			h.retireAt = now
		}
		wait = min(wait, max(time.Second, a.left(h, now)+2*slack))
	}
	return wait
}

// retireIn returns how long it is until h is to be revoked or, if that is impossible, forgotten.
func (a *Agent) retireIn(h *holding, now instant) time.Duration {
	if h.limits.cannotRevoke {
		return max(0, a.left(h, now)+2*slack)
	}
	return until(now, h.retireAt)
}

// noteExpiry says once when the app's key ends and nothing took its place.
func (a *Agent) noteExpiry(now instant) {
	h := a.current
	if h == nil || h.health.dead() {
		return
	}
	if a.left(h, now) > 0 {
		h.said.drop(saidExpired)
	} else if !h.said.has(saidExpired) {
		h.said.add(saidExpired)
		a.log.Error("the key has expired, and could not be extended or replaced: the app's token is refused until that succeeds",
			h.attrs()...)
	}
}
