package child

import (
	"syscall"
	"time"
)

// end tells the command to end, and ends it by force if it does not.
func (s *Supervisor) end(sig syscall.Signal) {
	if s.ending {
		return
	}
	s.ending, s.told, s.asked = true, true, time.Now()
	s.onEnd()
	s.ask(s.current, sig)
	s.cfg.Log.Info("stopping the command", "signal", sig.String(), "at_most", s.cfg.KillAfter)
}

// ask sends sig, and force after the time for that. What is stopped goes on, so that it can end.
func (s *Supervisor) ask(p *process, sig syscall.Signal) {
	s.send(sig)
	s.send(syscall.SIGCONT)
	p.kill = time.AfterFunc(s.cfg.KillAfter, func() {
		s.force(p)
		s.cfg.Log.Warn("the command did not end in time: ending it by force", "pid", p.cmd.Process.Pid)
	})
}

// outlive ends what a command has left behind when it ended: that has its token, which is about to be revoked.
func (s *Supervisor) outlive(p *process) {
	if p.kill == nil && !s.gone(p) {
		s.cfg.Log.Info("the command has ended and left processes behind: ending them", "at_most", s.cfg.KillAfter)
		s.ending, s.asked = true, time.Now()
		s.onEnd()
		s.ask(p, syscall.SIGTERM)
	}
	s.await(p, func(sig syscall.Signal) {
		if (sig == syscall.SIGTERM || sig == syscall.SIGINT) && time.Since(s.asked) >= echo {
			s.force(p)
		}
	}, nil, nil)
}

const (
	// lingering is how often to look whether the rest of a command's group has ended: nobody tells.
	lingering = 10 * time.Millisecond
	// zombieGrace is how long what was killed may go on to be seen, because nobody has reaped it.
	zombieGrace = 2 * time.Second
	// echo is how long after a signal another one is taken for the same.
	echo = 100 * time.Millisecond
)

// await waits for the end of a command and of all that it started, and hands signals on meanwhile. It calls onStop once
// when stop is closed, which may be nil.
func (s *Supervisor) await(p *process, pass func(syscall.Signal), stop <-chan struct{}, onStop func()) {
	defer p.settle()
	poll := time.NewTicker(lingering)
	defer poll.Stop()
	latest := time.Now().Add(s.cfg.KillAfter + zombieGrace)
	for {
		select {
		case sig := <-s.caught:
			pass(sig.(syscall.Signal))
		case <-stop:
			stop = nil
			onStop()
		case <-poll.C:
			switch { // they are ours only since their parents have ended
			case p.forced.Load():
				s.signalStrays(p, syscall.SIGKILL)
			case p.kill != nil:
				s.signalStrays(p, syscall.SIGTERM)
			}
			if p.over() && s.gone(p) {
				return
			}
			if p.over() && time.Now().After(latest) {
				if left := s.cfg.Reaper.Strays(); len(left) > 0 {
					s.cfg.Log.Error("processes that the command has left behind do not end, and have its token", "pids", left)
				}
				return
			}
		}
	}
}

// signalStrays signals what a command that has ended left behind with another process group.
func (s *Supervisor) signalStrays(p *process, sig syscall.Signal) {
	if !p.cmd.SysProcAttr.Setpgid || !p.over() {
		return
	}
	for _, pid := range s.cfg.Reaper.Strays() {
		if group, err := syscall.Getpgid(pid); err == nil && group == p.cmd.Process.Pid {
			continue // it got the group's signal
		}
		if sig == syscall.SIGKILL || !p.strays[pid] {
			p.strays[pid] = true
			_ = syscall.Kill(pid, sig)
		}
	}
}

// force ends a process and, where it has a group, all that it started.
func (s *Supervisor) force(p *process) {
	p.forced.Store(true)
	if p.cmd.SysProcAttr.Setpgid {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		return
	}
	_ = p.cmd.Process.Kill()
}

// send signals the command, and what it started where it has a process group.
func (s *Supervisor) send(sig syscall.Signal) {
	if s.current == nil {
		return
	}
	pid := s.current.cmd.Process.Pid
	if s.current.cmd.SysProcAttr.Setpgid && (sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGCONT) {
		pid = -pid
	}
	_ = syscall.Kill(pid, sig)
}
