//go:build !bench

package sidecar

import (
	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/key"
)

// newBudget returns the request budget of a key.
func newBudget(s config.Key) *agent.Budget {
	return agent.NewBudget(agent.Times(s.Times), s.Kind != key.User)
}
