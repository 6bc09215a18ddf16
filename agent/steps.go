package agent

import (
	"context"
	"time"
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
	in    time.Duration
	run   func(context.Context) error
	about *holding // the key that it is about, where that can be part of a batch
}

// next returns the first task that is due, or else the one that is due soonest, and how long until then; 0: now.
func (a *Agent) next(now instant) (task, time.Duration) {
	return a.soonest(now, func(kind) bool { return true })
}

// nextLocal is next for the steps that need not wait for a turn.
func (a *Agent) nextLocal(now instant) (task, time.Duration) { return a.soonest(now, kind.local) }

// soonest is next for the steps of some kinds.
func (a *Agent) soonest(now instant, among func(kind) bool) (task, time.Duration) {
	best := task{in: attendedSleep}
	tasks := a.tasks(now)
	a.prune(tasks)
	pressed := a.pressed()
	for _, t := range tasks {
		if !among(t.kind) {
			continue
		}
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

// nextEvent returns how long it is until another step is due, or a step more urgent, than the one that waits for its turn.
func (a *Agent) nextEvent(now instant) time.Duration {
	wait := attendedSleep
	for _, t := range a.tasks(now) {
		if t.in > 0 {
			wait = min(wait, t.in)
		}
	}
	if at, ok := a.lastCall(now.mono); ok {
		wait = min(wait, at-now.mono)
	}
	if in := a.wanesIn(now); in > 0 {
		wait = min(wait, in)
	}
	return max(wait, time.Millisecond)
}

// restIn returns how long a step that failed is to rest yet. pressed reports that an urgent one fails, too.
func (a *Agent) restIn(k kind, s *streak, now instant, pressed bool) time.Duration {
	in := max(a.due(k, s)-now.mono, a.budgetIn(k, s, now))
	if a.outage() != nil && weather(s.class) {
		in = s.asked - now.mono // the account's turns space the tries of all keys
	}
	if pressed && !k.urgent() {
		in = max(in, s.last+patience-now.mono)
	}
	if in > 0 && a.cfg.Crowd.Together && !a.lastCalling(now.add(in)) {
		in = until(now, a.atNextStretch(now.add(in), a.cfg.Times.retryStretch()))
	}
	return in
}

// tasks lists what there is to do, the most urgent first.
func (a *Agent) tasks(now instant) []task {
	var list []task
	add := func(k kind, in time.Duration, run func(context.Context) error) {
		list = append(list, task{step: step{kind: k}, in: in, run: run, about: a.current})
	}
	if len(a.undecided) > 0 {
		add(identifyAccount, 0, a.identify)
		return list
	}
	saving, others := a.ofCurrent(now)
	list = append(list, saving...)
	if a.successor != nil {
		list = append(list, a.successorTask())
	}
	list = append(list, others...)
	for _, h := range a.retiring {
		if !h.waits || a.current != nil {
			end := func(ctx context.Context) error { return a.revoke(ctx, h) }
			list = append(list, task{step: step{revokeOld, h.rec.Name}, in: a.retireIn(h, now), run: end, about: h})
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

// ofCurrent lists what there is to do for the key that the app reads. saving goes before the steps towards a successor: when
// the key is about to expire, since an extension is one request where a successor is several.
func (a *Agent) ofCurrent(now instant) (saving, others []task) {
	if a.current == nil {
		return nil, nil
	}
	all := a.currentTasks(now)
	switch {
	case a.lastCalling(now):
		return all, nil
	case !a.endangered(now):
		return nil, all
	}
	for _, t := range all {
		if t.kind == findKey || t.kind == extendKey {
			saving = append(saving, t)
		} else {
			others = append(others, t)
		}
	}
	return saving, others
}

// successorTask is the next step of the key that is on its way.
func (a *Agent) successorTask() task {
	switch s := a.successor; {
	case s.rec.State == minting:
		return task{step: step{kind: settleMint}, run: a.settle}
	case s.health != accepted:
		return task{step: step{kind: verifyKey}, run: a.verifyNew}
	}
	return task{step: step{kind: publishKey}, run: a.publishNew}
}

// currentTasks lists what there is to do for the key that the app reads.
func (a *Agent) currentTasks(now instant) []task {
	var list []task
	add := func(k kind, in time.Duration, run func(context.Context) error) {
		list = append(list, task{step: step{kind: k}, in: in, run: run, about: a.current})
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
		extendable := c.adopted && c.rec.ID != 0 && in <= 0 && c.vanished == 0 // what an extension did not find is asked for
		if !extendable || !a.timed && !c.told.health || a.left(c, now) > a.cfg.Times.lastCalls()[0] {
			add(confirmKey, a.confirmIn(c, now), a.check)
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
		add(findKey, a.findIn(c, now), a.find)
	}
	if in := a.extendIn(c, now); a.shouldExtend(c, in) {
		add(extendKey, in, a.extend)
	}
	add(checkKey, a.checkIn(now), a.check)
	return list
}

// confirmIn is how long an adopted key waits for a list that shows it.
func (a *Agent) confirmIn(c *holding, now instant) time.Duration {
	if !a.listed() || a.hurried || a.doubting || !c.adopted || c.told.health || c.health != unproven {
		return 0
	}
	return until(now, c.born.add(listTime))
}

// checkIn is how long it is until the agent asks for its key. What a list will show once an outage is over is not asked for.
func (a *Agent) checkIn(now instant) time.Duration {
	in := until(now, a.nextCheck)
	if calm := a.cfg.Crowd.Turns.Calm(); a.listed() && !a.doubting && calm < listTime {
		in = max(in, listTime-calm)
	}
	return in
}

// findIn is how long a key's id is not looked up, so that it is with those of others. Nobody may be waiting for it.
func (a *Agent) findIn(c *holding, now instant) time.Duration {
	if !a.cfg.Crowd.Together || a.hurried {
		return 0
	}
	return until(now, a.atNextStretch(c.born, a.cfg.Times.findStretch()))
}

// repairIn spaces repairs: somebody may keep changing the outputs.
func (a *Agent) repairIn(now instant) time.Duration {
	if a.repairPause == 0 {
		return 0
	}
	return until(now, a.repaired.add(a.repairPause))
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
