package main

import (
	"flag"
	"fmt"

	"github.com/balena-injector/injector/internal/probe"
)

// runHandover makes the next stop of the running injector leave its keys to the next start.
func runHandover(in *invocation) error {
	undo := false
	if err := in.flags("handover", func(f *flag.FlagSet) { f.BoolVar(&undo, "undo", false, "") }); err != nil {
		return err
	}
	what := "handover"
	if undo {
		what = "no-handover"
	}
	at, err := in.place()
	if err != nil {
		return err
	}
	answer, err := probe.Tell(in.stop, at.Dir, what)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(in.stdout, answer)
	return err
}
