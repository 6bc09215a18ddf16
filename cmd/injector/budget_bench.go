//go:build bench

package main

import "github.com/balena-injector/injector/agent"

// newBudget returns a budget without a limit, for make bench alone: it extends a key a thousand
// times in a few seconds.
func newBudget(s keySettings) *agent.Budget {
	b := agent.NewBudget(s.Times, false)
	b.Open()
	return b
}
