//go:build !bench

package main

import (
	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/key"
)

// newBudget returns the request budget of a key.
func newBudget(s keySettings) *agent.Budget { return agent.NewBudget(s.Times, s.Kind != key.User) }
