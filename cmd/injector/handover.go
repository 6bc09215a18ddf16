package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/probe"
)

// handoverFor is how long the next stop hands over after somebody asked for that.
const handoverFor = 10 * time.Minute

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
	answer, err := probe.Tell(in.stop, at.dir, what)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(in.stdout, answer)
	return err
}

// ask does what a person asks for through the socket.
func (a *app) ask(what string) (string, error) {
	switch {
	case what == "handover" && a.command != "run":
		return "", fmt.Errorf("`injector %s` runs here, and only `injector run` can be replaced beside an app", a.command)
	case what == "handover":
		until := time.Now().Add(handoverFor)
		a.handover.Store(&until)
		a.log.Info("the next stop hands over", "until", until.UTC().Truncate(time.Second))
		return fmt.Sprintf("until %s a stop leaves keys and files to the next start: restart or replace the injector now",
			until.UTC().Format(time.RFC3339)), nil
	case what == "no-handover":
		a.handover.Store(nil)
		a.log.Info("the next stop revokes, as ever")
		return "a stop revokes keys and removes files, as ever", nil
	case what == "reread" && a.again != nil:
		a.again()
		return "reading the credentials again", nil
	}
	return "", errors.New("there is nothing of that name to ask for")
}

// handable is a stop that hands over if somebody has asked for that a short while before.
func (a *app) handable(stop context.Context) (handed context.Context, undo func()) {
	ctx, end := context.WithCancelCause(context.WithoutCancel(stop))
	stopped := context.AfterFunc(stop, func() {
		cause := context.Cause(stop)
		if until := a.handover.Load(); until != nil && time.Now().Before(*until) {
			a.log.Info("handing over, as was asked for", "because", cause)
			cause = agent.ErrHandOver
		}
		end(cause)
	})
	return ctx, func() { stopped(); end(nil) }
}

// errStuck ends a process whose main loop does not turn any more.
var errStuck = errors.New("the main loop has made no progress for minutes: ending without revoking, so that the next start adopts the keys")

// guardEvery is how often to look whether the loops turn.
const guardEvery = time.Minute

// guarded does work and gives it up when a key's loop is stuck before the stop: the next start is helped by that,
// and apps keep their tokens. A liveness probe of the platform would end it with SIGTERM, which revokes. It takes two
// looks, since a process that was frozen for long is late everywhere.
func (a *app) guarded(stop context.Context, work func() error) error {
	done := make(chan error, 1)
	go func() { done <- work() }()
	look := time.NewTicker(guardEvery)
	defer look.Stop()
	stopping := stop.Done()
	for stale := 0; ; {
		select {
		case err := <-done:
			return err
		case <-stopping:
			look.Stop() // the end has a time of its own
			stopping = nil
		case <-look.C:
			if a.Alive() {
				stale = 0
			} else if stale++; stale == 2 {
				return errStuck
			}
		}
	}
}
