package agent

import (
	"context"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/turn"
)

// local reports whether a step sends no request of its own, so that it takes no turn.
func (k kind) local() bool {
	switch k {
	case publishKey, repairOutputs, labelOutputs, rewriteJournal:
		return true
	}
	return false
}

// need is how urgent a step is among those of all agents, and how many requests it takes; 0 where it is part of a batch,
// or usually needs none.
func (a *Agent) need(t task, now instant) (turn.Urgency, int) {
	batched := 0
	if !a.cfg.Crowd.Together || t.about != nil && t.about.alone.has(t.kind) {
		batched = 1
	}
	dying := a.current != nil && (a.current.health != accepted || a.left(a.current, now) <= a.cfg.Times.lastCalls()[0])
	raised := func(u turn.Urgency) turn.Urgency {
		switch {
		case a.saves(t.kind, now):
			return turn.Save
		case dying:
			return turn.Rescue
		}
		return u
	}
	switch t.kind {
	case identifyAccount:
		return raised(turn.Make), 0
	case draftKey: // sends nothing as a rule, but what is drafted is minted at once
		return raised(turn.Make), 1
	case settleMint, verifyKey:
		return raised(turn.Finish), 1
	case findKey:
		return raised(turn.Keep), batched
	case extendKey:
		return raised(turn.Keep), 2 * batched
	case revokeOld:
		return turn.Keep, 2 * batched
	case tendSession:
		return turn.Keep, 0
	}
	if a.missing {
		return raised(turn.Finish), 1
	}
	return raised(turn.Check), 1
}

// mayRun reports whether it is this agent's turn for t. If not, it has asked for it.
func (a *Agent) mayRun(t task, now instant) bool {
	if a.cfg.Crowd.Turns == nil || t.kind.local() {
		if a.ticket.Granted() {
			a.giveBack() // what is done now is nobody's turn
		}
		return true
	}
	urgency, cost := a.need(t, now)
	if a.ticket != nil && !a.ticket.For(urgency, cost) {
		a.giveBack()
	}
	if a.ticket == nil {
		a.ticket = a.cfg.Crowd.Turns.Ask(urgency, cost, a.nudge)
	}
	if a.ticket.Granted() {
		return true
	}
	if outage := a.cfg.Crowd.Turns.Outage(); outage != nil {
		a.suffer(t.step, now, outage)
	}
	return false
}

// giveBack gives back a turn that is not needed any more.
func (a *Agent) giveBack() {
	a.ticket.Done()
	a.ticket = nil
}

// suffer notes that a step is not tried because requests of the account fail, which is a failure to those who look at this
// key. The log has been told by who found out.
func (a *Agent) suffer(s step, now instant, outage error) {
	row := a.steps[s]
	if row == nil {
		row = &streak{since: now, quiet: true}
		a.steps[s] = row
	}
	if row.failures == 0 {
		row.failures = 1
		a.count(s.kind)
	}
	row.class, _ = key.ClassOf(outage)
	row.err, row.last, row.until = outage, now.mono, 0
}

// outage returns why requests of the account fail at the moment, for all who send them.
func (a *Agent) outage() error { return a.cfg.Crowd.Turns.Outage() }

// withTurn returns a context whose requests the turn pays for.
func (a *Agent) withTurn(ctx context.Context) context.Context {
	if a.ticket == nil {
		return ctx
	}
	return turn.With(ctx, a.ticket)
}
