package child

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestOtherVariablesRestartTheCommand when all that the one before has started is at its end. Nobody has asked for the
// end, then.
func TestOtherVariablesRestartTheCommand(t *testing.T) {
	rest := `(trap 'trap "" TERM; sleep 0.2; echo rest$N >>seen; exit' TERM; echo >ready; while :; do sleep 0.02; done) &`
	x := newTrial(t, Config{Restart: true}, rest+` until [ -e ready ]; do sleep 0.02; done; rm ready
		trap 'echo end$N >>seen; exit 8' TERM; echo start$N >>seen; while :; do sleep 0.02; done`)
	x.run("N=1")
	x.wrote("seen", "start1")
	x.Vars([]string{"N=2"})
	x.wrote("seen", "start1 end1 rest1 start2")
	if got := x.ends.Load(); got != 0 {
		t.Errorf("onEnd was called %d times", got)
	}
	if got := x.Restarts(); got != 1 {
		t.Errorf("%d restarts", got)
	}
	x.stop()
	x.wantCode(8)
	x.wantEnds(1, true)
	if got := words("seen"); got != "start1 end1 rest1 start2 end2 rest2" {
		t.Errorf("seen: %s", got)
	}
}

// TestARestartDoesNotWaitForever for a command that does not end.
func TestARestartDoesNotWaitForever(t *testing.T) {
	x := newTrial(t, Config{Restart: true, KillAfter: 100 * time.Millisecond},
		"trap '' TERM; echo start$N >>seen; while :; do sleep 0.02; done")
	x.run("N=1")
	x.wrote("seen", "start1")
	x.Vars([]string{"N=2"})
	x.wrote("seen", "start1 start2")
	x.stop()
	x.wantCode(128 + 9)
}

// TestWhatHappensWithoutARestart has a command that keeps the old variables: it gets a signal if one is configured, and
// if none is the log says it.
func TestWhatHappensWithoutARestart(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		says string
		want string
	}{
		{"a signal", Config{Signal: syscall.SIGUSR2}, "signalling the command: another key takes over", "ready USR2 TERM"},
		{"nothing", Config{}, "still has the old one in its environment", "ready TERM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTrial(t, c.cfg, recorder("seen", ":"))
			x.run()
			x.wrote("seen", "ready")
			x.Vars([]string{"N=2"})
			x.says(c.says)
			if c.cfg.Signal != 0 {
				x.wrote("seen", "ready USR2")
			}
			x.stop()
			x.wantCode(3)
			if got := words("seen"); got != c.want {
				t.Errorf("seen: %s", got)
			}
		})
	}
}

// TestACommandThatHasEndedIsNotRestarted also when its variables change before that is noticed.
func TestACommandThatHasEndedIsNotRestarted(t *testing.T) {
	x := newTrial(t, Config{Restart: true}, "echo start >>seen")
	if err := x.take(x.ctx, nil); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of the command", x.current.done)
	if err := x.take(x.ctx, []string{"N=2"}); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of the command", x.current.done)
	if got := words("seen"); got != "start" {
		t.Errorf("seen: %s", got)
	}
}

// TestASignalDuringARestart is passed on to the command that is on its way out; one that asks for the end means that it
// is not started again, and another one of those that it has no more time.
func TestASignalDuringARestart(t *testing.T) {
	for _, impatient := range []bool{false, true} {
		t.Run(map[bool]string{false: "once", true: "twice"}[impatient], func(t *testing.T) {
			x := newTrial(t, Config{Restart: true}, `trap "echo TERM >>seen" TERM; trap "echo HUP >>seen" HUP; echo start >>seen
				until [ -e may-end ]; do sleep 0.02; done; exit 9`)
			x.run("N=1")
			x.wrote("seen", "start")
			x.Vars([]string{"N=2"})
			x.wrote("seen", "start TERM")
			raise(t, syscall.SIGHUP)
			x.wrote("seen", "start TERM HUP")
			if got := x.ends.Load(); got != 0 {
				t.Errorf("onEnd was called %d times", got)
			}
			raise(t, syscall.SIGTERM)
			x.wrote("seen", "start TERM HUP TERM")
			x.says("stopping the command instead of restarting it")
			if impatient {
				began := time.Now()
				eventually(t, "that a signal is another one", func() bool { return time.Since(began) > echo })
				raise(t, syscall.SIGINT)
				x.wantCode(128 + 9)
			} else {
				touch(t, "may-end")
				x.wantCode(9)
			}
			x.wantEnds(1, true)
			if got := strings.Count(x.log.String(), "started the command"); got != 1 {
				t.Errorf("started %d times", got)
			}
		})
	}
}
