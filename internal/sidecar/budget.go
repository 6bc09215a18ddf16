//go:build !bench

package sidecar

import (
	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/turn"
)

// newBudget returns the request budget of a key.
func newBudget(s config.Key) *agent.Budget {
	return agent.NewBudget(agent.Times(s.Times), s.Kind != key.User)
}

// openTurns lifts nothing: an account sends at its rate.
func openTurns(*turn.Queue) {}
