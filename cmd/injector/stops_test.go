package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// TestAKeyTakenOutThatCannotBeRevoked has a key that is not configured any more, whose DELETE fails until after the
// stop: it is named, and the exit code says so, of run and of revoke. The next start revokes it.
func TestAKeyTakenOutThatCannotBeRevoked(t *testing.T) {
	t.Parallel()
	s := newKeysStage(t)
	p := s.start("run")
	s.ready()
	left := s.report().Keys[1].Key // the fleet's
	p.signal(syscall.SIGQUIT)
	p.wait(5 * time.Second)
	s.set("INJECTOR_KEYS", "deploy")
	for name := range s.env {
		if strings.HasPrefix(name, "INJECTOR_FLEET_") {
			delete(s.env, name)
		}
	}
	s.server.Fail(balenatest.Fault{
		Kind:   "revoke",
		Status: 503,
		Match:  func(m balenatest.Match) bool { return strings.Contains(m.Path, fmt.Sprintf("(%d)", left.ID)) },
	})
	p = s.start("run")
	s.ready()
	s.eventually("a try", func() bool { return strings.Contains(p.stderr.String(), "could not revoke an old key") })
	p.signal(syscall.SIGTERM)
	if code := p.wait(9 * time.Second); code != int(exitLeft) {
		t.Errorf("exit %d", code)
	}
	contains(t, p.stderr.String(), "left to expire", left.Name)
	s.wantLive(1) // the other one is gone
	s.set("INJECTOR_INIT_TIMEOUT", "2s")
	contains(t, s.want(int(exitLeft), "revoke"), "left to expire", left.Name)
	s.server.Heal()
	s.want(0, "revoke")
	s.wantLive(0)
}

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

// TestASlowDisk has a state directory whose disk takes a second for each write, and a stop at every tenth of a second of
// a short life. Each stop is over within its time, and the key is dead.
func TestASlowDisk(t *testing.T) {
	binary := buildToCrash(t)
	for n := range 20 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, balenatest.Options{})
			s.binary = binary
			s.set("CRASH_SLOW", "1s", "INJECTOR_SHUTDOWN_TIMEOUT", "3s", "INJECTOR_CHECK_INTERVAL", "1s")
			p := s.start("run")
			s.eventually("a mint", func() bool { return s.server.Count("mint") == 1 })
			time.Sleep(time.Duration(n) * 400 * time.Millisecond) // a real disk, and a real stop
			began := time.Now()
			p.signal(syscall.SIGTERM)
			code := p.wait(10 * time.Second)
			if took := time.Since(began); took > 4*time.Second || code != 0 {
				t.Errorf("exit %d after %v", code, took)
			}
			s.wantLive(0)
		})
	}
}

// TestExecWithARedirectedInput has a command that reads from the terminal though its standard input is something else.
func TestExecWithARedirectedInput(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	script := filepath.Join(s.dir, "app")
	writeText(t, script, "read line </dev/tty; [ \"$line\" = typed ] && exit 5\n")
	p, press := s.startShell()
	press(os.Args[0] + " exec -- sh " + script + " </dev/null\n")
	s.eventually("the command", func() bool { return strings.Contains(s.log.String(), "started the command") })
	press("typed\n")
	s.eventually("its end", func() bool { return strings.Contains(s.log.String(), "the command has ended") })
	press("exit $?\n")
	if code := p.wait(8 * time.Second); code != 5 {
		t.Errorf("exit %d", code)
	}
	s.wantLive(0)
}

// TestAStoppedCommandIsNoticed stops a command of exec, and lets it go on.
func TestAStoppedCommandIsNoticed(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	record := filepath.Join(s.dir, "pid")
	p := s.start("exec", "--", "sh", "-c", "echo $$ > "+record+"; while :; do sleep 0.05; done")
	s.eventually("a start", func() bool { return len(lines(record)) == 1 })
	kill := func(sig string) {
		t.Helper()
		if out, err := exec.Command("kill", "-"+sig, lines(record)[0]).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
	}
	kill("STOP")
	s.eventually("a word about it", func() bool { return strings.Contains(p.stderr.String(), "the command is stopped") })
	kill("CONT")
	s.eventually("a word about that", func() bool { return strings.Contains(p.stderr.String(), "the command goes on") })
	p.signal(syscall.SIGTERM)
	p.wait(8 * time.Second)
	s.wantLive(0)
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
