package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/balena-injector/injector/key"
)

// kind of step, in words that follow "trying to".
type kind string

const (
	identify kind = "find out whose account it is"
	draft    kind = "prepare a new key"
	settle   kind = "mint the key"
	verify   kind = "verify the new key"
	publish  kind = "publish the key"
	confirm  kind = "verify the adopted key"
	find     kind = "find the key's id"
	extend   kind = "extend the key"
	check    kind = "check that the key lives"
	repair   kind = "write the outputs again"
	label    kind = "write the expiry beside the outputs"
	retire   kind = "revoke an old key"
	tend     kind = "look after the session"
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

// streak is a row of failures of one step.
type streak struct {
	failures int
	dry      int // tries that our own request budget ended
	class    key.Class
	last     time.Duration // when it failed last, on the monotonic clock
	until    time.Duration // when it is due again; a pause is not shortened by setting a clock
	err      error
	since    instant
}

// next returns the first task that is due, or the one that will be, and how long that takes.
func (a *Agent) next(now instant) (task, time.Duration) {
	best := task{in: maxSleep}
	tasks := a.tasks(now)
	a.prune(tasks)
	struggling := a.struggling()
	for _, t := range tasks {
		if s := a.steps[t.step]; s != nil {
			t.in = max(t.in, s.until-now.mono, a.budgetIn(s, now))
			if struggling && !t.kind.urgent() {
				t.in = max(t.in, s.last+patience-now.mono)
			}
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

// budgetIn returns how long a step that failed must wait for the request budget. It leaves the
// reserve at first, and after a while what the shortest way to a good key takes.
func (a *Agent) budgetIn(s *streak, now instant) time.Duration {
	if s.failures == 0 {
		return 0
	}
	rested := s.last + reserveAfter - now.mono
	return min(a.cfg.Budget.untilHas(reserve+1), max(rested, a.cfg.Budget.untilHas(shortestWay)))
}

// prune forgets failures of steps that are not to be taken any more.
func (a *Agent) prune(tasks []task) {
	for s := range a.steps {
		if !slices.ContainsFunc(tasks, func(t task) bool { return t.step == s }) {
			delete(a.steps, s)
		}
	}
}

// patience is how long a failing step that can wait does so while an urgent one fails too: the
// request budget is for that one.
const patience = 5 * time.Minute

// urgent tells whether an app's token depends on the step.
func (k kind) urgent() bool {
	switch k {
	case find, check, tend, retire, label:
		return false
	}
	return true
}

// struggling tells whether an urgent step fails because of the server.
func (a *Agent) struggling() bool {
	for s, row := range a.steps {
		if s.kind.urgent() && (row.class == key.Outage || row.class == key.Ambiguous || row.class == key.Busy) {
			return true
		}
	}
	return false
}

// tasks lists what there is to do, the most urgent first.
func (a *Agent) tasks(now instant) []task {
	var list []task
	add := func(k kind, in time.Duration, run func(context.Context) error) {
		list = append(list, task{step{kind: k}, in, run})
	}
	if len(a.undecided) > 0 {
		add(identify, 0, a.identify)
		return list
	}
	if s := a.successor; s != nil {
		switch {
		case s.rec.State == minting:
			add(settle, 0, a.settle)
		case !s.verified:
			add(verify, 0, a.verifyNew)
		default:
			add(publish, 0, a.publishNew)
		}
	}
	if a.current != nil {
		list = append(list, a.currentTasks(now)...)
	}
	for _, h := range a.retiring {
		if !h.waits || a.current != nil {
			list = append(list, task{step{retire, h.rec.Name}, a.retireIn(h, now), func(ctx context.Context) error { return a.revoke(ctx, h) }})
		}
	}
	if in, ok := a.mintIn(now); ok {
		add(draft, in, a.draft)
	}
	if !a.tendDone && (a.current != nil || a.successor != nil) {
		add(tend, until(now, a.nextTend), a.tend)
	}
	return list
}

// currentTasks lists what there is to do for the key that the app reads.
func (a *Agent) currentTasks(now instant) []task {
	var list []task
	add := func(k kind, in time.Duration, run func(context.Context) error) {
		list = append(list, task{step{kind: k}, in, run})
	}
	c := a.current
	switch {
	case c.dead && c.listed:
		if in := a.extendIn(c, now); a.extends(c, in) {
			add(extend, in, a.extend)
		}
		add(check, until(now, a.nextCheck), a.check)
		return list
	case c.dead:
		return nil
	case !c.verified:
		add(confirm, 0, a.check)
		return list
	}
	if a.successor == nil && !a.cfg.Publisher.Intact(a.publication(c)) {
		add(repair, until(now, a.repaired.add(a.repairPause)), a.repair)
	}
	if a.unlabeled {
		add(label, 0, a.label)
	}
	if c.rec.ID == 0 && !a.found {
		add(find, 0, a.find)
	}
	if in := a.extendIn(c, now); a.extends(c, in) {
		add(extend, in, a.extend)
	}
	add(check, until(now, a.nextCheck), a.check)
	return list
}

// extendIn returns how long it is until c must be extended or replaced.
func (a *Agent) extendIn(c *holding, now instant) time.Duration {
	if a.left(c, now) > a.cfg.Times.TTL+2*slack && !c.stuck {
		return 0 // of a longer TTL, or without an end: what nobody can revoke must die within this one
	}
	in := until(now, a.extendAt(c))
	if c.vanishedAt != nil {
		in = max(in, until(now, c.vanishedAt.add(settlePause)))
	}
	return in
}

// extends tells whether c is to be extended rather than replaced. One that is too old is
// extended all the same while a successor is not to be had.
func (a *Agent) extends(c *holding, in time.Duration) bool {
	switch {
	case c.stuck:
		return c.rec.ID != 0 && in <= 0 && a.succession()
	case in > 0 || !a.cfg.Times.tooOld(a.age(c)):
		return true
	}
	return a.succession()
}

// succession tells whether there is trouble with making a successor: it fails, or there is no
// room for one.
func (a *Agent) succession() bool {
	for _, k := range []kind{draft, settle, verify, publish} {
		if s := a.steps[step{kind: k}]; s != nil && s.failures > 0 {
			return true
		}
	}
	return a.successor == nil && a.alive(a.clock.now()) >= 2
}

// mintIn returns how long it is until a new key must be made, and whether one will be.
func (a *Agent) mintIn(now instant) (time.Duration, bool) {
	c := a.current
	var in time.Duration
	switch {
	case a.successor != nil:
		return 0, false
	case c == nil, c.dead:
		in = a.unplannedIn(now)
	case !c.verified:
		return 0, false
	case c.stuck:
		in = until(now, a.extendAt(c))
	case c.overdue:
		in = 0
	case a.cfg.Times.tooOld(a.age(c) + max(0, a.extendIn(c, now))):
		in = a.extendIn(c, now)
	default:
		return 0, false
	}
	if in <= 0 && a.alive(now) >= 2 {
		in = a.makeRoom(now)
	}
	return in, true
}

// unplannedIn spaces mints that nobody planned: at once, then ever further apart while keys die
// young.
func (a *Agent) unplannedIn(now instant) time.Duration {
	if !a.pace.any {
		return 0
	}
	return until(now, a.pace.last.add(a.cfg.Times.replacementGap(a.pace.young)))
}

// makeRoom ends an overlap early: a third key is made only when the oldest of two is gone. It
// returns how long that takes at most.
func (a *Agent) makeRoom(now instant) time.Duration {
	wait := maxSleep
	for _, h := range a.retiring {
		if !a.mayLive(h, now) {
			continue
		}
		if !h.forever && until(now, h.retireAt) > 0 && !h.waits {
			a.log.Info("ending the overlap early: another key is needed, and two are the limit", h.attrs()...)
			h.retireAt = now
		}
		wait = min(wait, max(time.Second, a.left(h, now)+2*slack))
	}
	return wait
}

// retireIn returns how long it is until h is to be revoked or, if that is impossible, forgotten.
func (a *Agent) retireIn(h *holding, now instant) time.Duration {
	if h.forever {
		return max(0, a.left(h, now)+2*slack)
	}
	return until(now, h.retireAt)
}

// note remembers how a step went, and says so in the log.
func (a *Agent) note(ctx context.Context, s step, err error) {
	old := a.steps[s]
	if err == nil {
		if old != nil && old.failures > 0 {
			a.log.Info("recovered: could "+string(s.kind), "after_failures", old.failures, "after", a.since(old.since))
		}
		delete(a.steps, s)
		return
	}
	if ctx.Err() != nil {
		return // the stop, not a failure
	}
	now := a.clock.now()
	if old == nil {
		old = &streak{since: now}
		a.steps[s] = old
	}
	class, wait := key.ClassOf(err)
	if _, paused := errors.AsType[*pausedError](err); !paused && class == key.Busy && a.cfg.Budget.untilHas(1) > 0 {
		// Our own budget, and no failure. A step of several requests needs as many at once.
		old.dry++
		old.class, old.err = class, err
		need := min(2*old.dry, reserve)
		if !s.kind.urgent() {
			need = reserve + 1
		}
		old.until = now.mono + a.cfg.Budget.untilHas(need)
		a.log.Debug("not now: could not "+string(s.kind), "error", err)
		return
	}
	first := old.failures == 0 || old.class != class
	old.failures++
	old.class, old.err = class, err
	left := a.cfg.Times.TTL
	if a.current != nil {
		left = a.left(a.current, now)
	}
	pause := pauseFor(class, wait, old.failures, left, a.cfg.Random())
	old.last, old.until = now.mono, now.mono+pause
	a.logFailure(s, err, pause, first)
}

// rest makes a step that was not tried itself wait as if it had failed.
func (a *Agent) rest(k kind, err error) {
	s := step{kind: k}
	row := a.steps[s]
	if row == nil {
		row = &streak{since: a.clock.now()}
		a.steps[s] = row
	}
	row.failures++
	row.class, row.err, row.last = key.Wrong, err, a.clock.now().mono
	pause := retryPause(row.failures, a.cfg.Times.TTL, a.cfg.Random())
	row.until = row.last + pause
	a.logFailure(s, err, pause, row.failures == 1)
}

func (a *Agent) since(i instant) time.Duration {
	return (a.clock.now().mono - i.mono).Round(time.Second)
}

// logFailure says what failed: the first of a row at once, the others at most once a minute
// together.
func (a *Agent) logFailure(s step, err error, pause time.Duration, first bool) {
	now := a.clock.now()
	if !first && now.mono-a.failedAt.mono < time.Minute {
		a.log.Debug("could not "+string(s.kind), "error", err, "next_try_in", pause.Round(time.Millisecond))
		return
	}
	a.failedAt = now
	args := []any{"error", err, "next_try_in", pause.Round(time.Second)}
	if a.current != nil && !a.current.dead {
		args = append(args, "key_expires_in", max(0, a.left(a.current, now)).Round(time.Second))
	}
	if a.cfg.Advise != nil {
		if advice := a.cfg.Advise(err); advice != "" {
			args = append(args, "fix", advice)
		}
	}
	if class, _ := key.ClassOf(err); class == key.Refused || class == key.FreshLogin {
		a.log.Error("could not "+string(s.kind)+"; a corrected credential file is tried at once", args...)
		return
	}
	a.log.Warn("could not "+string(s.kind), args...)
}

// noteExpiry says once when the app's key ends and nothing took its place.
func (a *Agent) noteExpiry(now instant) {
	h := a.current
	if h == nil || h.dead {
		return
	}
	ended := a.left(h, now) <= 0
	if ended && !h.ended {
		a.log.Error("the key has expired, and could not be extended or replaced: the app's token is refused until that succeeds", h.attrs()...)
	}
	h.ended = ended
}

// forgiveRefusals makes steps due that rest because of the credential.
func (a *Agent) forgiveRefusals() {
	for s, row := range a.steps {
		if row.class == key.Refused || row.class == key.FreshLogin {
			delete(a.steps, s)
		}
	}
}

// hanging names the step that keeps failing, or that is due, for people.
func (a *Agent) hanging() string {
	var worst *streak
	var name kind
	for s, row := range a.steps {
		if worst == nil || row.failures > worst.failures {
			worst, name = row, s.kind
		}
	}
	if worst != nil {
		return string(name) + " (" + worst.err.Error() + ")"
	}
	t, _ := a.next(a.clock.now())
	return string(t.kind)
}
