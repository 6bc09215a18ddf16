package main

import (
	"slices"
	"strings"

	"github.com/balena-injector/injector/internal/probe"
)

// report is what the injector that this environment is about tells of itself, or, if none answers, what it has left.
func (in *invocation) report() (probe.Report, error) {
	at, err := in.placeToShow()
	if err != nil {
		return probe.Report{}, err
	}
	r, err := probe.AskReport(in.stop, at.dir, at.outputs)
	if err != nil {
		r, err = atRest(at, err)
	}
	if strings.HasPrefix(at.dir, execPlace()) && !at.explicit {
		r.Others = slices.DeleteFunc(usedPlaces(), func(dir string) bool { return dir == at.dir })
	}
	return r, err
}
