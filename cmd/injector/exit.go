package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/sidecar"
	"github.com/balena-injector/injector/key"
)

// exitCode is how the program ends. The numbers are part of the contract with orchestrators.
type exitCode int

const (
	exitDone    exitCode = 0 // done
	exitFailed  exitCode = 1 // failed; trying again may help
	exitConfig  exitCode = 2 // the configuration is wrong
	exitRefused exitCode = 3 // balena refused the credential
	exitLeft    exitCode = 4 // stopped, but keys that could have been revoked were left to expire
)

// tell says why a command failed, in the form that the log has.
func (in *invocation) tell(name string, err error) {
	advice := sidecar.Advise(in.env, err)
	if strings.EqualFold(in.env.Get("INJECTOR_LOG_FORMAT"), "json") {
		log := newLog(in.stderr, slog.LevelError, true).With("command", name, "exit_code", int(codeOf(err)))
		if advice != "" {
			log = log.With("fix", advice)
		}
		log.Error(err.Error())
		return
	}
	_, _ = fmt.Fprintf(in.stderr, "injector %s: %v\n", name, err)
	if advice != "" {
		_, _ = fmt.Fprintf(in.stderr, "  fix: %s\n", advice)
	}
}

// silent ends the program with a code when everything has been said.
func silent(code exitCode) error { return sidecar.ExitError{Code: int(code)} }

// codeOf returns the exit code for an error.
func codeOf(err error) exitCode {
	var exit sidecar.ExitError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &exit):
		return exitCode(exit.Code)
	case errors.As(err, new(config.Problems)):
		return exitConfig
	case key.Is(err, key.Refused), key.Is(err, key.FreshLogin):
		return exitRefused
	case errors.As(err, new(*agent.LeftError)):
		return exitLeft
	}
	return exitFailed
}
