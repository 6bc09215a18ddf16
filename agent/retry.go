package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/settle"
)

// streak is a row of failures of one step.
type streak struct {
	failures int
	dry      int // tries that our own request budget ended
	class    key.Class
	began    time.Duration // when its last try began, on the monotonic clock
	last     time.Duration // when that failed
	asked    time.Duration // until when the server, our budget or a refusal wants it to wait
	until    time.Duration // when it is due again by our own back-off; setting a clock does not shorten it
	err      error
	since    instant
	quiet    bool // it failed with those of other keys, which was said for all
}

// due is when a step is to be tried again, on the monotonic clock. A pause that was chosen while
// the app's key was healthy is cut short when the key is not healthy any more.
func (a *Agent) due(k kind, s *streak) time.Duration {
	until := min(s.until, s.last+a.longestPause(k, s.class))
	if at, ok := a.lastCall(s.began); ok && k.urgent() {
		until = min(until, at)
	}
	return max(s.asked, until)
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

// urgent reports whether an app's token depends on the step.
func (k kind) urgent() bool {
	switch k {
	case findKey, checkKey, tendSession, revokeOld, labelOutputs, rewriteJournal:
		return false
	}
	return true
}

// struggling reports whether an urgent step fails because of the server.
func (a *Agent) struggling() bool {
	for s, row := range a.steps {
		if s.kind.urgent() && weather(row.class) {
			return true
		}
	}
	return false
}

// note remembers how a step went, and says so in the log.
func (a *Agent) note(ctx context.Context, s step, began instant, err error) {
	old := a.steps[s]
	if err == nil {
		if s.kind.asksServer() {
			a.lastSuccess = a.clock.now().wall
		}
		if old != nil && old.failures > 0 && !old.quiet && !a.foundDead(s.kind) {
			a.log.Info("recovered: could "+string(s.kind), "after_failures", old.failures, "after", a.since(old.since))
		}
		delete(a.steps, s)
		return
	}
	if ctx.Err() != nil {
		return // the stop, not a failure
	}
	if s.kind.writesOutputs() {
		a.proven = time.Time{} // whatever was found before: look again before a key is minted
	}
	now := a.clock.now()
	if old == nil {
		old = &streak{since: now}
		a.steps[s] = old
	}
	old.began = began.mono
	class, wait := key.ClassOf(err)
	_, paused := errors.AsType[*settle.NotYet](err)
	if !paused && (class == key.Busy || class == key.Ambiguous && wait > 0) && a.cfg.Budget.untilHas(1) > 0 {
		// Our own budget, and no failure. A step of several requests needs as many at once.
		old.dry++
		old.class, old.err = class, err
		need := min(2*old.dry, reserve)
		if !s.kind.urgent() {
			need = reserve + 1
		} else if a.lastCalling(now) {
			need = 1
		}
		old.asked = now.mono + a.cfg.Budget.untilHas(need)
		a.log.Debug("not now: could not "+string(s.kind), "error", err)
		return
	}
	first := old.failures == 0 || old.class != class
	old.failures, old.quiet = old.failures+1, false
	a.count(s.kind)
	old.class, old.err = class, err
	tries := old.failures
	u := a.cfg.Random()
	asked, own := askedFor(class, wait, u), retryPause(tries, a.longestPause(s.kind, class), u)
	if paused {
		own = 0
	}
	old.last, old.asked, old.until = now.mono, now.mono+asked, now.mono+own
	a.logFailure(s, err, a.restIn(s.kind, old, now, a.pressed()), first)
}

// foundDead reports whether a step that asks for the app's key succeeded in that it found it dead.
func (a *Agent) foundDead(k kind) bool {
	return (k == checkKey || k == confirmKey) && a.current != nil && a.current.health.dead()
}

// longestPause is the cap on the pause of a step after a failure of that class.
func (a *Agent) longestPause(k kind, class key.Class) time.Duration {
	c := a.current
	if c == nil {
		return retryCap(a.cfg.Times.TTL, false)
	}
	return retryCap(a.left(c, a.clock.now()), a.calm() && k.canWait() && weather(class))
}

// weather reports whether a failure of that class is the server's, and many agents may have it.
func weather(class key.Class) bool {
	return class == key.Outage || class == key.Busy || class == key.Ambiguous
}

// calm reports whether the app's key is healthy, as far as is known, and nobody waits for a step.
func (a *Agent) calm() bool {
	c := a.current
	return !a.hurried && c != nil && c.health == accepted && a.left(c, a.clock.now()) > 0
}

// canWait reports whether a step can be late without anybody noticing while the key is healthy. Asking
// whether it is healthy cannot.
func (k kind) canWait() bool {
	switch k {
	case draftKey, settleMint, extendKey, revokeOld, tendSession:
		return true
	}
	return false
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
	a.count(k)
	row.class, row.err, row.last = key.Wrong, err, a.clock.now().mono
	pause := retryPause(row.failures, retryCap(a.cfg.Times.TTL, false), a.cfg.Random())
	row.asked = row.last + pause
	a.logFailure(s, err, pause, row.failures == 1)
}

// count counts a failure. Snapshots have the map that was current when they were made.
func (a *Agent) count(k kind) {
	failures := maps.Clone(a.failures)
	if failures == nil {
		failures = map[string]int64{}
	}
	failures[string(k)]++
	a.failures = failures
}

// writesOutputs reports whether a step writes what the app reads.
func (k kind) writesOutputs() bool { return k == publishKey || k == repairOutputs || k == labelOutputs }

// asksServer reports whether a step that succeeds has had an answer of the server.
func (k kind) asksServer() bool {
	switch k {
	case publishKey, repairOutputs, labelOutputs, rewriteJournal:
		return false
	}
	return true
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
	if a.current != nil && !a.current.health.dead() {
		args = append(args, "token_expires_in", max(0, a.left(a.current, now)).Round(time.Second))
	}
	if a.cfg.Advise != nil {
		if advice := a.cfg.Advise(err); advice != "" {
			args = append(args, "fix", advice)
		}
	}
	switch class, wait := key.ClassOf(err); {
	case (class == key.Refused || class == key.FreshLogin) && wait == 0:
		a.log.Error("could not "+string(s.kind)+"; a corrected credential file is tried at once", args...)
		return
	case class == key.Refused: // the error says when
		a.log.Error("could not "+string(s.kind), args...)
		return
	}
	a.log.Warn("could not "+string(s.kind), args...)
}

// forgive makes steps due that rest because of the credential or of the outputs.
func (a *Agent) forgive() {
	a.repairPause = 0
	for s, row := range a.steps {
		if row.class == key.Refused || row.class == key.FreshLogin || s.kind == publishKey || s.kind == repairOutputs ||
			s.kind == labelOutputs {
			delete(a.steps, s)
		}
	}
}

// hanging names the step that keeps failing, and why, or the one that is due, for people.
func (a *Agent) hanging() (name string, cause error) {
	var worst *streak
	for s, row := range a.steps {
		if worst == nil || row.failures > worst.failures {
			worst, name, cause = row, string(s.kind), row.err
		}
	}
	if worst == nil {
		t, _ := a.next(a.clock.now())
		name = string(t.kind)
	}
	return name, cause
}
