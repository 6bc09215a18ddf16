package sidecar

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/statedir"
)

// lock keeps other injectors out of the state directory, waiting for one that is on its way out.
func (a *App) lock(stop context.Context) (err error) {
	defer func() {
		if err == nil {
			a.state.Sign(a.signature())
		}
	}()
	if err := a.state.TryLock(); !errors.Is(err, statedir.ErrLocked) {
		if doubt := a.state.Unlockable(); doubt != nil {
			a.log.Warn("nothing keeps another injector out of the state directory: its file system has no locks", "error", doubt)
		}
		return err
	}
	a.log.Info("waiting for another injector to leave the state directory", "directory", a.state.Path(), "at_most", a.settings.InitTimeout)
	ctx, cancel := context.WithTimeout(stop, a.settings.InitTimeout)
	defer cancel()
	err = a.state.Lock(ctx)
	if err != nil && stop.Err() != nil {
		return ErrStopped
	}
	return err
}

// ErrStopped ends a command that was stopped before it held anything.
var ErrStopped = errors.New("stopped while waiting for the state directory")

// sign records how this process left the state directory, for those who ask later.
func (a *App) sign(err error) {
	p := a.signature()
	p.End, p.Ended = statedir.EndStopped, time.Now().UTC()
	switch {
	case errors.Is(err, ErrStuck):
		return // what hangs may hold a lock
	case errors.As(err, new(*agent.LeftError)):
		p.End, p.Error = statedir.EndLeft, err.Error()
	case err != nil && !errors.As(err, new(ExitError)):
		p.Error = err.Error()
	case a.handedOver():
		p.End = statedir.EndHandedOver
	case a.process.Command == "init":
		p.End = statedir.EndPublished
	}
	a.state.Sign(p)
}

// handedOver reports whether a key was left to the next start.
func (a *App) handedOver() bool {
	return slices.ContainsFunc(a.keepers, func(k *keeper) bool { return k.agent().Status().Phase == "handing over" })
}

// signature is this process, as it is written into the lock's file.
func (a *App) signature() statedir.Process {
	p := a.process
	return statedir.Process{PID: os.Getpid(), Command: p.Command, Version: p.Version, Started: p.Started.UTC()}
}
