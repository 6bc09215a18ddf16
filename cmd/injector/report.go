package main

import (
	"slices"
	"strings"

	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/sidecar"
)

// report is what the injector that this environment is about tells of itself, or, if none answers, what it has left.
func (in *invocation) report() (probe.Report, error) {
	at, err := in.placeToShow()
	if err != nil {
		return probe.Report{}, err
	}
	r, err := probe.AskReport(in.stop, at.Dir, at.Outputs)
	if err != nil {
		r, err = sidecar.AtRest(at, err)
	}
	if strings.HasPrefix(at.Dir, config.ExecPlace()) && !at.Explicit {
		r.Others = slices.DeleteFunc(sidecar.UsedPlaces(), func(dir string) bool { return dir == at.Dir })
	}
	return r, err
}
