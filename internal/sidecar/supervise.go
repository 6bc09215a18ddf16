package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"syscall"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/child"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/statedir"
)

// ExitError ends a process with an exit code, such as its command's. All that is to be said has been said.
type ExitError struct{ Code int }

// Error names the code.
func (e ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// NewExec is New for Exec, in a place where it is alone. Another exec may take a free place before it is locked.
func NewExec(stop context.Context, p Process, s config.Settings, log *slog.Logger) (*App, error) {
	wanted := s
	for try := 1; ; try++ {
		s.StateDir = freePlace(wanted)
		a, err := New(p, s, log)
		if err != nil {
			return nil, err
		}
		if err = a.state.TryLock(); err == nil ||
			errors.Is(err, statedir.ErrLocked) && (freePlace(wanted) == s.StateDir || try == MostExecs) {
			err = a.lock(stop)
		}
		if err == nil {
			return a, nil
		}
		err = errors.Join(err, a.Close())
		// An exec that ends removes the place that it has chosen: this one may have been opened just before.
		if !errors.Is(err, statedir.ErrLocked) && !errors.Is(err, fs.ErrNotExist) || try >= MostExecs {
			return nil, err
		}
	}
}

// Exec keeps every key while a command runs that has their tokens in its environment. It returns an ExitError with the
// command's exit code, 128 and the signal's number if a signal ended it, and nil for 0.
func (a *App) Exec(stop, kill context.Context, args []string) (err error) {
	defer func() { a.sign(err); a.vacate() }()
	a.logStart()
	reaper := child.NewReaper(true)
	defer reaper.Stop()
	a.prepareNotices(reaper)
	return a.serve(stop, false, func() error { return a.supervise(stop, kill, reaper, args) })
}

// supervise keeps the keys while the command runs. The signals are the supervisor's: it passes them
// on. One more that asks for the end, when the command has ended, leaves the keys as they are.
func (a *App) supervise(stop, kill context.Context, reaper *child.Reaper, args []string) error {
	s := a.settings
	sup := child.New(child.Config{
		Args:      args,
		Environ:   s.Environ.ForChild(),
		KillAfter: s.KillAfter,
		Restart:   s.RestartChild,
		Signal:    s.SignalChild,
		Reaper:    reaper,
		Log:       a.log,
	})
	a.supervisor.Store(sup)
	if stop.Err() != nil { // the signal came before the supervisor caught them
		return ExitError{128 + int(syscall.SIGTERM)}
	}
	stop, end := context.WithCancelCause(context.WithoutCancel(stop))
	kill, abandon := context.WithCancel(context.WithoutCancel(kill))
	defer abandon()
	v := newVars(a, sup.Vars)
	defer a.startNotices()()

	others := make(chan struct{})
	var leftError error
	go func() { defer close(others); leftError = a.drainUnconfigured(stop, kill) }()
	childStop, stopChild := context.WithCancel(context.Background())
	agents := make(chan error, 1)
	go func() {
		agents <- a.each(func(k *keeper) error {
			err := k.named(k.agent().Supervise(stop, kill, v.ready))
			end(err) // one that gives up ends all
			stopChild()
			return err
		})
	}()
	code, err := sup.Run(childStop, func() {
		// The whole of an orderly end counts from here: the command's, then the keys'.
		time.AfterFunc(s.ShutdownTimeout, abandon)
	})
	if err == nil {
		a.log.Info("the command has ended", "exit_code", code)
	}
	end(whyEnded(code, err, sup.Told()))
	go sup.Impatient(kill, abandon)
	failed := <-agents
	<-others
	return a.outcome(code, err, errors.Join(failed, leftError))
}

// outcome is how exec ends: err is why there was no command, or none any more, and failed what went wrong with the keys.
func (a *App) outcome(code int, err, failed error) error {
	notStarted := errors.Is(err, child.ErrNotStarted)
	switch {
	case err != nil && !notStarted:
		return errors.Join(err, failed)
	case err != nil && code == 0:
		return failed // the agents gave up
	case notStarted && !errors.As(failed, new(*agent.LeftError)):
		// A signal; there was nothing to go wrong.
	case notStarted:
		a.log.Error("stopped before the command was started, and not all went well after that", "error", failed)
	case failed != nil:
		a.log.Error("the command has ended, and not all went well after that", "error", failed)
	}
	if code == 0 {
		return nil
	}
	return ExitError{code}
}

// whyEnded is why agents of exec stop. A command that failed by itself is probably started again at once.
func whyEnded(code int, err error, told bool) error {
	switch {
	case errors.Is(err, child.ErrNotStarted):
		return err
	case err != nil || code == 0 || told:
		return errors.New("the command has ended")
	}
	return fmt.Errorf("the command has ended with exit code %d, and %w", code, agent.ErrMayRestart)
}
