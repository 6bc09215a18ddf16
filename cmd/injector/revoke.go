package main

import (
	"errors"
	"flag"
	"fmt"

	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/sidecar"
)

func runRevoke(in *invocation) (err error) {
	var expired bool
	if err := in.flags("revoke", func(f *flag.FlagSet) { f.BoolVar(&expired, "expired", false, "") }); err != nil {
		return err
	}
	s, log, err := in.load(config.Options{WithoutFiles: true, Supervising: in.supervisedHere()})
	if err != nil {
		return err
	}
	s.ShutdownTimeout = max(s.ShutdownTimeout, s.InitTimeout) // nobody is about to kill this command
	s.ShutdownDelay = 0
	if places := sidecar.LeftPlaces(s); len(places) > 0 { // of execs that ran side by side
		s.StateDir = places[0]
		for _, place := range places[1:] {
			other := s
			other.StateDir = place
			err = errors.Join(err, in.wired("revoke", other, log, func(a *sidecar.App) error { return a.Revoke(in.stop, in.kill, false) }))
		}
	}
	if !expired && !exists(s.StateDir) {
		return fmt.Errorf("there is no state directory %s, so nothing is known to revoke: "+
			"set INJECTOR_OUTPUT or INJECTOR_STATE_DIR as the injector had them", s.StateDir)
	}
	return errors.Join(err, in.wired("revoke", s, log, func(a *sidecar.App) error { return a.Revoke(in.stop, in.kill, expired) }))
}
