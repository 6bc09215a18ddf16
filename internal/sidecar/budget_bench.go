//go:build bench

package sidecar

import (
	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/turn"
)

// newBudget returns a budget without a limit, for make bench alone: it extends a key a thousand
// times in a few seconds.
func newBudget(s config.Key) *agent.Budget {
	b := agent.NewBudget(agent.Times(s.Times), false)
	b.Open()
	return b
}

// openTurns lifts an account's rate, likewise.
func openTurns(q *turn.Queue) { q.Open() }
