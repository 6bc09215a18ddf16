package sidecar

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/balena-injector/injector/agent"
)

// handoverFor is how long the next stop hands over after somebody asked for that.
const handoverFor = 10 * time.Minute

// ask does what a person asks for through the socket.
func (a *App) ask(what string) (string, error) {
	switch {
	case what == "handover" && a.process.Command != "run":
		return "", fmt.Errorf("`injector %s` runs here, and only `injector run` can be replaced beside an app", a.process.Command)
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

// withHandover returns a stop that hands over if somebody has asked for that a short while before.
func (a *App) withHandover(stop context.Context) (handed context.Context, undo func()) {
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
