package child

import (
	"strings"
	"syscall"
	"testing"
)

// TestAGroupIsAskedOnce has a command that ends at once, and a process of its group that takes a second SIGTERM for "at
// once": it ends in order.
func TestAGroupIsAskedOnce(t *testing.T) {
	x := newTrial(t, Config{}, `(trap 'trap - TERM; sleep 0.3; echo in order >rest; exit' TERM
			echo ready >rest; while :; do sleep 0.02; done) &
		until [ -s rest ]; do sleep 0.02; done
		trap 'exit 3' TERM; echo ready >command; while :; do sleep 0.02; done`)
	x.run()
	x.wrote("command", "ready")
	x.stop()
	x.wantCode(3)
	if got := words("rest"); got != "in order" {
		t.Errorf("the rest of its group has written %q", got)
	}
}

// TestAStopDuringARestart keeps the command from being started once more.
func TestAStopDuringARestart(t *testing.T) {
	x := newTrial(t, Config{Restart: true}, `trap 'echo asked >>seen; until [ -e may-end ]; do sleep 0.02; done; exit 4' TERM
		echo started >>seen; while :; do sleep 0.02; done`)
	x.run("N=1")
	x.wrote("seen", "started")
	x.Vars([]string{"N=2"})
	x.wrote("seen", "started asked")
	x.stop()
	eventually(t, "the stop is noticed", func() bool { return x.ends.Load() == 1 })
	touch(t, "may-end")
	x.wantCode(4)
	if got := words("seen"); got != "started asked" {
		t.Errorf("the command has written %q", got)
	}
	if !x.Told() || !strings.Contains(x.log.String(), "instead of restarting it") {
		t.Errorf("told %v: %s", x.Told(), x.log)
	}
}

// TestKeysOfATerminalDuringARestart are not sent once more.
func TestKeysOfATerminalDuringARestart(t *testing.T) {
	x := newTrial(t, Config{}, recorder("seen", ":"))
	if err := x.start(nil); err != nil {
		t.Fatal(err)
	}
	x.wrote("seen", "ready")
	x.terminal = true
	for _, sig := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGWINCH} {
		x.duringReplacement(sig)
	}
	x.terminal = false
	x.duringReplacement(syscall.SIGUSR1)
	x.wrote("seen", "ready USR1")
}

// TestAStartIsNotStopped whatever the command before it was.
func TestAStartIsNotStopped(t *testing.T) {
	x := newTrial(t, Config{}, "exit 3")
	x.stopped = true
	if err := x.start(nil); err != nil {
		t.Fatal(err)
	}
	if x.stopped {
		t.Error("a command that was just started counts as stopped")
	}
	<-x.current.done
}
