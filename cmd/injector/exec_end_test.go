package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// TestTheSameSignalTwice is what timeout(1) sends: to its child, and to the group that the child is in.
func TestTheSameSignalTwice(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	p := s.start("run")
	s.ready()
	p.signal(syscall.SIGTERM)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 0 {
		t.Errorf("exit %d", code)
	}
	s.wantLive(0)
	e := newExecStage(t)
	p = e.start("exec", "--", "sh", "-c", "trap 'sleep 0.5; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
	e.eventually("a start", func() bool { return strings.Contains(p.stdout.String(), "ready") })
	p.signal(syscall.SIGTERM)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 9 {
		t.Errorf("exec: exit %d", code)
	}
	e.wantLive(0)
}

// lives reports whether a process runs; a dead one that nobody has buried does not.
func lives(pid string) bool {
	raw, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(raw), ") Z ")
}

// TestExecEndsAllThatItsCommandStarted has a command that ends at once, and a child of it that does not: at a stop, at
// the command's own end, and at a rotation, where the next start must not meet it.
func TestExecEndsAllThatItsCommandStarted(t *testing.T) {
	const child = `(trap "" TERM; echo child >> $RECORD; exec sleep 60) & echo $! >> $RECORD; `
	start := func(t *testing.T, script string) (*stage, *proc, string) {
		t.Parallel()
		s := newExecStage(t)
		record := filepath.Join(s.dir, "record")
		s.set("RECORD", record, "INJECTOR_CHECK_INTERVAL", "1s")
		p := s.start("exec", "--", "sh", "-c", script)
		s.eventually("the child", func() bool { return len(lines(record)) == 2 })
		pid := lines(record)[0]
		if _, err := strconv.Atoi(pid); err != nil {
			pid = lines(record)[1]
		}
		return s, p, pid
	}
	t.Run("stop", func(t *testing.T) {
		s, p, pid := start(t, child+"wait")
		p.signal(syscall.SIGTERM)
		if code := p.wait(8 * time.Second); code != 143 {
			t.Errorf("exit %d", code)
		}
		if lives(pid) {
			t.Error("it lives on, with a token that is revoked")
		}
		s.wantLive(0)
	})
	t.Run("end", func(t *testing.T) {
		s, p, pid := start(t, child+"until [ $(wc -l <$RECORD) = 2 ]; do sleep 0.02; done; exit 7")
		if code := p.wait(8 * time.Second); code != 7 {
			t.Errorf("exit %d", code)
		}
		if lives(pid) {
			t.Error("it lives on, with a token that is revoked")
		}
		s.wantLive(0)
	})
	t.Run("rotation", func(t *testing.T) {
		s, p, pid := start(
			t,
			`[ ! -e $RECORD ] || { [ ! -d /proc/$(head -1 $RECORD) ] || echo met >> $RECORD; `+
				`echo second >> $RECORD; sleep 60; }; `+child+"wait",
		)
		s.server.DeleteKey(s.server.Live()[0].ID)
		record := s.env["RECORD"]
		s.eventually("the second start", func() bool { return strings.Contains(strings.Join(lines(record), " "), "second") })
		if lives(pid) || strings.Contains(strings.Join(lines(record), " "), "met") {
			t.Error("the second start met what the first had started")
		}
		p.signal(syscall.SIGTERM)
		p.wait(8 * time.Second)
		s.wantLive(0)
	})
}

// TestExecEndsAStoppedCommandInOrder has one that has stopped itself.
func TestExecEndsAStoppedCommandInOrder(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	p := s.start("exec", "--", "sh", "-c", `trap "exit 9" TERM; echo ready; kill -STOP $$; while :; do sleep 0.05; done`)
	s.eventually("a start", func() bool { return strings.Contains(p.stdout.String(), "ready") })
	p.signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 9 {
		t.Errorf("exit %d", code)
	}
	s.wantLive(0)
}
