package main

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// TestAHandoverThatWasAskedFor restarts the sidecar as a platform does, with SIGTERM, right after the command that asks
// for a handover, and once more without it.
func TestAHandoverThatWasAskedFor(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	contains(t, s.want(1, "handover"), "no injector is running")
	p := s.start("run")
	s.ready()
	token, _ := os.ReadFile(s.token())
	for range 2 {
		contains(t, s.want(0, "handover"), "a stop leaves keys and files to the next start")
		p.signal(syscall.SIGTERM)
		if code := p.wait(5 * time.Second); code != 0 {
			t.Errorf("exit %d", code)
		}
		if now, _ := os.ReadFile(s.token()); string(now) != string(token) || !s.server.Accepts(string(now)) {
			t.Error("the app's token is gone, or another one")
		}
		p = s.start("run")
		s.ready()
	}
	if n := s.server.Count("mint"); n != 1 {
		t.Errorf("%d mints", n)
	}
	s.want(0, "handover")
	contains(t, s.want(0, "handover", "--undo"), "a stop revokes")
	p.stop()
}

// TestOnlyRunHandsOver asks an exec, whose app ends with it.
func TestOnlyRunHandsOver(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	p := s.start("exec", "--", "sleep", "60")
	s.ready()
	contains(t, s.want(1, "handover"), "injector exec", "injector run")
	p.signal(syscall.SIGTERM)
	p.wait(8 * time.Second)
	s.wantLive(0)
}
