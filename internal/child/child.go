// Package child runs one command for `injector exec`: it starts it, passes signals on, restarts it
// with another environment, ends it in order and by force, with all that it has left behind, and reaps orphans.
package child

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

// Config is what a Supervisor is made of.
type Config struct {
	Args      []string       // the command, not empty
	Environ   []string       // its environment but for what Start adds
	KillAfter time.Duration  // how long it may take to end
	Restart   bool           // when its variables change
	Signal    syscall.Signal // sent instead; 0: nothing happens
	Reaper    *Reaper        // nil: what the command leaves behind is not ours
	Log       *slog.Logger
}

// Supervisor runs the command. Make it with New, and call Run once.
type Supervisor struct {
	cfg      Config
	caught   chan os.Signal
	vars     chan []string  // the newest variables; holds one
	children chan os.Signal // something has happened to a child
	terminal bool           // the command shares the terminal, and gets its keys from there
	alone    *os.File       // we are PID 1 on this terminal: the command has it for itself
	stopped  bool           // the command is stopped, as far as is known
	ending   bool           // it was told to end
	told     bool           // by a signal or the stop, and not by its own end
	asked    time.Time      // when
	onEnd    func()
	current  *process
	restarts atomic.Int64
}

// Restarts says how often the command was started again for another key. Any goroutine may call it.
func (s *Supervisor) Restarts() int64 { return s.restarts.Load() }

// Passed returns the signals that are passed on to the command. SIGTERM and SIGINT also begin its end.
func Passed() []os.Signal {
	return []os.Signal{syscall.SIGTERM, os.Interrupt, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGALRM, syscall.SIGWINCH, syscall.SIGCONT}
}

// New returns a supervisor, which catches signals from now on.
func New(cfg Config) *Supervisor {
	s := &Supervisor{cfg: cfg, caught: make(chan os.Signal, 32), children: make(chan os.Signal, 1), vars: make(chan []string, 1)}
	// PID 1 has no shell above it that would have to get the terminal back, and its signals come from
	// the container's engine: they must be passed on.
	if tty := controllingTerminal(); tty != nil && os.Getpid() == 1 {
		s.alone = tty
	} else if s.terminal = tty != nil; s.terminal && tty != os.Stdin {
		_ = tty.Close()
	}
	signal.Notify(s.children, syscall.SIGCHLD)
	signal.Notify(s.caught, slices.DeleteFunc(Passed(), signal.Ignored)...) // what nohup ignores stays ignored
	return s
}

// Vars hands over the variables that the command is to have from now on; the first ones start it.
// It never blocks. Only one goroutine may call it.
func (s *Supervisor) Vars(vars []string) {
	select {
	case <-s.vars:
	default:
	}
	s.vars <- vars
}

// ErrNotStarted is returned by Run when stop came before the command was started.
var ErrNotStarted = errors.New("stopped before the command was started")

// Run runs the command until it ends, and returns its exit code: 128 and the signal's number if a
// signal ended it. When stop is done before the command was started Run ends with ErrNotStarted;
// afterwards the command is told to end. onEnd is called once when that begins, for whatever reason.
func (s *Supervisor) Run(stop context.Context, onEnd func()) (code int, err error) {
	s.onEnd = onEnd
	stopped := stop.Done()
	for {
		select {
		case vars := <-s.vars:
			if err := s.take(stop, vars); err != nil {
				return 0, err
			}
		case sig := <-s.caught:
			if s.signal(sig.(syscall.Signal)) {
				return 128 + int(sig.(syscall.Signal)), ErrNotStarted
			}
		case <-stopped:
			if stopped = nil; s.current == nil {
				return 0, ErrNotStarted
			}
			s.end(syscall.SIGTERM)
		case <-s.children:
			s.lookAtCommand()
		case <-s.ended():
			s.outlive(s.current)
			return codeOf(s.current.cmd.ProcessState), nil
		}
	}
}

// Told reports, after Run, whether the command ended because somebody wanted that.
func (s *Supervisor) Told() bool { return s.told }

// Impatient calls f at the first SIGTERM or SIGINT that comes after Run, until ctx is done.
func (s *Supervisor) Impatient(ctx context.Context, f func()) {
	for len(s.caught) > 0 {
		<-s.caught // it came while the command ended: one that comes together with the first is the same
	}
	for {
		select {
		case sig := <-s.caught:
			if (sig == syscall.SIGTERM || sig == os.Interrupt) && time.Since(s.asked) >= echo {
				f()
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *Supervisor) ended() <-chan struct{} {
	if s.current == nil {
		return nil
	}
	return s.current.done
}

// take starts the command with its variables, or brings them to it.
func (s *Supervisor) take(stop context.Context, vars []string) error {
	switch {
	case s.ending:
		return nil
	case s.current != nil && s.current.over():
		return nil // it has ended by itself, and is not started again
	case s.current == nil:
		return s.start(vars)
	case s.cfg.Restart:
		s.cfg.Log.Info("restarting the command: another key takes over")
		if s.replace(stop); s.ending {
			return nil
		}
		s.restarts.Add(1)
		return s.start(vars)
	case s.cfg.Signal != 0:
		s.cfg.Log.Info("signalling the command: another key takes over", "signal", s.cfg.Signal.String())
		s.send(s.cfg.Signal)
	default:
		s.cfg.Log.Warn("another key takes over, and the command still has the old one in its environment (INJECTOR_ON_ROTATION=none)")
	}
	return nil
}

func (s *Supervisor) start(vars []string) error {
	cmd := exec.Command(s.cfg.Args[0], s.cfg.Args[1:]...)
	cmd.Env = append(append([]string(nil), s.cfg.Environ...), vars...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// On a terminal it stays in our process group: the keys for interrupting, stopping and going on
	// reach both, as in a pipeline. Elsewhere it has a group, so that all it started can be ended.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !s.terminal}
	if s.alone != nil {
		cmd.SysProcAttr.Foreground, cmd.SysProcAttr.Ctty = true, int(s.alone.Fd())
	}
	if err := s.cfg.Reaper.Start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", s.cfg.Args[0], startError(err))
	}
	p := &process{cmd: cmd, done: make(chan struct{}), strays: map[int]bool{}}
	s.current, s.stopped = p, false
	s.cfg.Log.Info("started the command", "command", s.cfg.Args[0], "pid", cmd.Process.Pid)
	go func() { _ = s.cfg.Reaper.Wait(cmd); close(p.done) }()
	return nil
}

// lookAtCommand says that the command was stopped, or goes on: it would not answer anybody, and nobody would know why.
func (s *Supervisor) lookAtCommand() {
	if s.current == nil || s.current.over() {
		return
	}
	stopped, continued := lookAt(s.current.cmd.Process.Pid)
	switch {
	case stopped && !s.stopped:
		s.cfg.Log.Warn(
			"the command is stopped: somebody stopped it, or it wants to read from a terminal that another job has. SIGCONT lets it go on",
			"pid", s.current.cmd.Process.Pid)
	case continued && s.stopped:
		s.cfg.Log.Info("the command goes on", "pid", s.current.cmd.Process.Pid)
	}
	s.stopped = stopped || s.stopped && !continued
}

// signal passes a signal on; TERM and INT also begin the command's end, and a second one ends it at
// once. It returns true if there is no command yet and the signal is one to end with.
func (s *Supervisor) signal(sig syscall.Signal) (end bool) {
	final := sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGQUIT
	if s.current == nil {
		return final
	}
	if s.fromTerminal(sig) {
		return false // what it means is the command's choice
	}
	switch {
	case sig != syscall.SIGTERM && sig != syscall.SIGINT:
		s.send(sig)
	case s.ending && time.Since(s.asked) < echo:
	case s.ending:
		s.force(s.current)
		s.cfg.Log.Warn("a second signal: ending the command by force")
	default:
		s.end(sig)
	}
	return false
}

// fromTerminal reports whether the terminal has sent a signal to the command as well.
func (s *Supervisor) fromTerminal(sig syscall.Signal) bool {
	return s.terminal && (sig == syscall.SIGINT || sig == syscall.SIGQUIT || sig == syscall.SIGWINCH || sig == syscall.SIGCONT)
}

// replace ends the command so that another start can follow, unless stop comes first. Signals are passed on meanwhile.
func (s *Supervisor) replace(stop context.Context) {
	p := s.current
	s.ask(p, syscall.SIGTERM)
	s.await(p, s.duringReplacement, stop.Done(), func() {
		if !s.ending {
			s.notAgain()
			s.cfg.Log.Info("stopping the command instead of restarting it")
		}
	})
}

// notAgain makes the end of the command that is being replaced the last one.
func (s *Supervisor) notAgain() {
	s.ending, s.told, s.asked = true, true, time.Now()
	s.onEnd()
}

// duringReplacement is signal while the command is on its way out: it is only not started again.
func (s *Supervisor) duringReplacement(sig syscall.Signal) {
	if s.fromTerminal(sig) {
		return
	}
	if sig == syscall.SIGTERM || sig == syscall.SIGINT {
		switch {
		case s.ending && time.Since(s.asked) < echo:
			return
		case s.ending:
			s.force(s.current)
			return
		}
		s.notAgain()
		defer s.cfg.Log.Info("stopping the command instead of restarting it", "signal", sig.String())
	}
	s.send(sig)
}
