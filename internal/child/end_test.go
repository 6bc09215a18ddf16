package child

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// deaf is a script that cannot be asked to end, with a process of its group that cannot either. Their numbers are in
// files.
const deaf = "trap '' TERM INT; sleep 60 & echo $! >child; echo $$ >command; while :; do sleep 0.02; done"

// TestTheEndBeginsOnce for whatever reason, and how the command ends is its own choice. After that it is not started again,
// and nothing waits for the time to kill it.
func TestTheEndBeginsOnce(t *testing.T) {
	for name, ask := range map[string]func(x *trial){
		"stop":    func(x *trial) { x.stop() },
		"SIGTERM": func(x *trial) { raise(x.t, syscall.SIGTERM) },
		"SIGINT":  func(x *trial) { raise(x.t, syscall.SIGINT) },
	} {
		t.Run(name, func(t *testing.T) {
			x := newTrial(t, Config{Restart: true}, `end() { echo $1 >>asked; until [ -e may-end ]; do sleep 0.02; done; exit 3; }
				trap "end TERM" TERM; trap "end INT" INT; echo ready >ready; while :; do sleep 0.02; done`)
			x.run()
			x.wrote("ready", "ready")
			ask(x)
			x.says("stopping the command")
			asked := strings.TrimPrefix(strings.ReplaceAll(name, "stop", "SIGTERM"), "SIG")
			x.wrote("asked", asked)
			x.stop()
			x.Vars([]string{"N=2"})
			eventually(t, "that the variables are taken", func() bool { return len(x.vars) == 0 })
			touch(t, "may-end")
			x.wantCode(3)
			x.wantEnds(1, true)
			if got := words("asked"); got != asked {
				t.Errorf("it was asked to end with %s", got)
			}
			if x.current.kill.Stop() {
				t.Error("it would be killed")
			}
			if got := strings.Count(x.log.String(), "started the command"); got != 1 {
				t.Errorf("started %d times", got)
			}
		})
	}
}

// TestWhatDoesNotEndIsKilled with all that it started, after the time for that.
func TestWhatDoesNotEndIsKilled(t *testing.T) {
	x := newTrial(t, Config{KillAfter: 100 * time.Millisecond}, deaf)
	x.run()
	eventually(t, "a start", func() bool { return words("command") != "" })
	x.stop()
	x.wantCode(128 + 9)
	x.wantEnds(1, true)
	x.says("the command did not end in time")
	for _, name := range []string{"command", "child"} {
		if !gone(number(t, name)) {
			t.Errorf("the %s lives on", name)
		}
	}
}

// TestASecondSignalDoesNotWait for the time that a command has, unless it is so close to the first that it is the same.
// The distance is made up: a machine with much to do cannot keep one.
func TestASecondSignalDoesNotWait(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			x := newTrial(t, Config{KillAfter: time.Hour}, deaf)
			if err := x.start(nil); err != nil {
				t.Fatal(err)
			}
			defer func() { x.current.settle() }()
			eventually(t, "a start", func() bool { return words("command") != "" })
			x.signal(syscall.SIGTERM)
			x.asked = time.Now().Add(time.Hour)
			x.signal(sig)
			if x.current.forced.Load() {
				t.Error("one that came with the first ended it by force")
			}
			x.asked = time.Now().Add(-echo)
			x.signal(sig)
			if !x.current.forced.Load() {
				t.Error("a second one did not end it by force")
			}
			wait(t, "the end of the command", x.current.done)
			if code := codeOf(x.current.cmd.ProcessState); code != 128+9 {
				t.Errorf("exit code %d", code)
			}
			eventually(t, "the end of what it had started", func() bool { return gone(number(t, "child")) })
			x.wantEnds(1, true)
		})
	}
}

// TestWhatACommandLeavesBehindIsEnded before Run ends, though nobody wanted the command to end: in order, by force after
// the time for that, or by force at once if somebody is impatient.
func TestWhatACommandLeavesBehindIsEnded(t *testing.T) {
	for _, c := range []struct {
		name      string
		trap      string
		killAfter time.Duration
		impatient bool
		asked     bool
	}{
		{
			name:      "in order",
			trap:      "trap 'echo asked >>asked; sleep 0.1; exit' TERM",
			killAfter: time.Hour,
			asked:     true,
		},
		{
			name:      "by force",
			trap:      "trap '' TERM",
			killAfter: 100 * time.Millisecond,
		},
		{
			name:      "at once",
			trap:      "trap '' TERM",
			killAfter: time.Hour,
			impatient: true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTrial(t, Config{KillAfter: c.killAfter}, "("+c.trap+"; echo >ready; while :; do sleep 0.02; done) & echo $! >left; "+
				"until [ -e ready ]; do sleep 0.02; done; exit 6")
			x.run()
			if c.impatient {
				x.says("left processes behind")
				began := time.Now()
				eventually(t, "that a signal is another one", func() bool { return time.Since(began) > echo })
				raise(t, syscall.SIGTERM)
			}
			x.wantCode(6)
			x.wantEnds(1, false)
			if !gone(number(t, "left")) {
				t.Error("it lives on")
			}
			if asked := words("asked") != ""; asked != c.asked {
				t.Errorf("asked to end: %v", asked)
			}
		})
	}
}

// TestAZombieDoesNotHoldUpTheEnd has a process in the command's group whose parent does not wait for it.
func TestAZombieDoesNotHoldUpTheEnd(t *testing.T) {
	x := newTrial(t, Config{KillAfter: 10 * time.Millisecond}, "echo $$ >command; until [ -e may-end ]; do sleep 0.02; done; exit 2")
	x.run()
	eventually(t, "a start", func() bool { return words("command") != "" })
	member := exec.Command("sh", "-c", "echo >may-end; exec sleep 60")
	member.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: number(t, "command")}
	if err := x.cfg.Reaper.Start(member); err != nil { // which does not reap it, then
		t.Fatal(err)
	}
	x.wantCode(2)
	if gone(member.Process.Pid) {
		t.Error("it was no zombie")
	}
	_ = x.cfg.Reaper.Wait(member)
	if state := member.ProcessState.Sys().(syscall.WaitStatus); !state.Signaled() {
		t.Errorf("it ended by itself: %v", member.ProcessState)
	}
}
