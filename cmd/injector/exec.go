package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/child"
	"github.com/balena-injector/injector/key"
)

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

// runExec is run with a command that has the token in its environment.
func runExec(in *invocation) (err error) {
	args, err := in.command("exec")
	if err != nil {
		return err
	}
	s, log, err := in.load(true)
	if err != nil {
		return err
	}
	if _, err := exec.LookPath(args[0]); err != nil {
		return configError{{"the command", "cannot be run: " + err.Error(), "give a program in PATH or the path of one"}}
	}
	a, err := newExecApp(in, s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	defer func() { a.sign(err); a.vacate() }()
	a.sayHello()
	reaper := child.NewReaper(true)
	defer reaper.Stop()
	a.prepareNotices(reaper)
	return a.serve(in.stop, false, func() error { return a.supervise(in, reaper, args) })
}

// newExecApp wires an app in a place where it is alone. Another exec may take a free place before it is locked.
func newExecApp(in *invocation, s settings, log *slog.Logger) (*app, error) {
	wanted := s.StateDir
	for try := 1; ; try++ {
		s.StateDir = freePlace(wanted)
		a, err := newApp("exec", s, log)
		if err != nil {
			return nil, err
		}
		if err = a.state.TryLock(); err == nil || errors.Is(err, agent.ErrLocked) && (freePlace(wanted) == s.StateDir || try == mostExecs) {
			err = a.lock(in.stop)
		}
		if err == nil {
			return a, nil
		}
		err = errors.Join(err, a.Close())
		// An exec that ends removes the place that it has chosen: this one may have been opened just before.
		if !errors.Is(err, agent.ErrLocked) && !errors.Is(err, fs.ErrNotExist) || try >= mostExecs {
			return nil, err
		}
	}
}

// command returns what follows a command's name, a -- before it being optional.
func (in *invocation) command(name string) ([]string, error) {
	args := in.args
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	} else if len(args) > 0 && len(args[0]) > 0 && args[0][0] == '-' {
		return nil, in.flags(name, nil)
	}
	if len(args) == 0 {
		return nil, configError{{"injector " + name, "has no command to run", "write it after --, such as: injector " + name + " -- my-app"}}
	}
	return args, nil
}

// supervise keeps the keys while the command runs. The signals are the supervisor's: it passes them
// on. One more that asks for the end, when the command has ended, leaves the keys as they are.
func (a *app) supervise(in *invocation, reaper *child.Reaper, args []string) error {
	s := a.settings
	sup := child.New(child.Config{Args: args, Environ: childEnviron(), KillAfter: s.KillAfter, Restart: s.RestartChild, Signal: s.SignalChild, Reaper: reaper, Log: a.log})
	if in.stop.Err() != nil { // the signal came before the supervisor caught them
		return silentError{exitCode(128 + int(syscall.SIGTERM))}
	}
	stop, end := context.WithCancelCause(context.WithoutCancel(in.stop))
	kill, abandon := context.WithCancel(context.WithoutCancel(in.kill))
	defer abandon()
	v := newVars(a, sup.Vars)
	defer a.startNotices()()

	orphans := make(chan struct{})
	var orphansError error
	go func() { defer close(orphans); orphansError = a.drainOrphans(stop, kill) }()
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
	<-orphans
	failed = errors.Join(failed, orphansError)
	switch {
	case err != nil && !errors.Is(err, child.ErrNotStarted):
		return errors.Join(err, failed)
	case err != nil && code == 0:
		return failed // the agents gave up
	case errors.Is(err, child.ErrNotStarted) && !errors.As(failed, new(*agent.LeftError)):
		// A signal; there was nothing to go wrong.
	case errors.Is(err, child.ErrNotStarted):
		a.log.Error("stopped before the command was started, and not all went well after that", "error", failed)
	case failed != nil:
		a.log.Error("the command has ended, and not all went well after that", "error", failed)
	}
	if code == 0 {
		return nil
	}
	return silentError{exitCode(code)}
}

// vars collects what the command's environment shall have.
type vars struct {
	mu     sync.Mutex
	hand   func([]string)
	tokens map[*keeper]key.Secret
	wait   int // keys that are not ready yet
}

func newVars(a *app, hand func([]string)) *vars {
	v := &vars{hand: hand, tokens: map[*keeper]key.Secret{}, wait: len(a.keepers)}
	for _, k := range a.keepers {
		k.told = append(k.told, func(p key.Publication, _ bool) { v.set(k, p.Key.Secret) })
	}
	return v
}

// set notes a key's token. Once all are ready, another token is handed over at once.
func (v *vars) set(k *keeper, token key.Secret) {
	v.mu.Lock()
	defer v.mu.Unlock()
	same := v.tokens[k].Equal(token)
	v.tokens[k] = token
	if v.wait == 0 && !same {
		v.hand(v.list())
	}
}

// ready counts a key that can be relied on.
func (v *vars) ready() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.wait--; v.wait == 0 {
		v.hand(v.list())
	}
}

func (v *vars) list() []string {
	var list []string
	for k, token := range v.tokens {
		for _, name := range k.settings.Variables {
			list = append(list, name+"="+token.Reveal())
		}
	}
	slices.Sort(list)
	return list
}
