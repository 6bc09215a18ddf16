package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTenExecsInARow are short ones, as in a script: each has a key of its own and leaves none. Each logs in, unless
// they share a session.
func TestTenExecsInARow(t *testing.T) {
	const execs = 10
	for name, logins := range map[string]int{"each with a login": execs, "with a shared session": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newExecStage(t)
			if logins == 1 {
				s.set("INJECTOR_SESSION_CACHE", filepath.Join(s.dir, "session"))
			}
			for n := 1; n <= execs; n++ {
				s.want(0, "exec", "--", "sh", "-c", `test ${#BALENA_TOKEN} = 32`)
				if mints := s.server.Count("mint"); mints != n {
					t.Errorf("%d mints for %d execs", mints, n)
				}
				s.wantLive(0)
			}
			if got := s.server.Count("login"); got != logins {
				t.Errorf("%d logins", got)
			}
		})
	}
}

// TestExecInALoop is what a platform does with a command that fails: the second start waits, says until when, and ends
// the wait at a signal. One whose command did its work does not wait.
func TestExecInALoop(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	s.set("INJECTOR_INIT_TIMEOUT", "1s")
	for range 3 {
		s.want(0, "exec", "--", "true")
	}
	s.want(1, "exec", "--", "false")
	p := s.start("exec", "--", "false")
	s.eventually("the wait", func() bool { return strings.Contains(p.stderr.String(), "waiting before a key is minted") })
	contains(t, p.stderr.String(), "until=")
	time.Sleep(2 * time.Second) // more than INJECTOR_INIT_TIMEOUT, which does not count it
	if code, out := s.do("healthcheck"); code != 1 || !strings.Contains(out, "waiting until") {
		t.Errorf("healthcheck: exit %d: %s", code, out)
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(5 * time.Second); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit %d", code)
	}
	if n := s.server.Count("mint"); n != 4 {
		t.Errorf("%d mints", n)
	}
	s.wantLive(0)
}
