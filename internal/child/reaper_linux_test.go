package child

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newReaper makes this process adopt orphans.
func newReaper(t *testing.T) *Reaper {
	t.Helper()
	t.Chdir(t.TempDir())
	r := NewReaper(true)
	if r == nil {
		t.Fatal("no orphans are adopted")
	}
	t.Cleanup(func() {
		endChildren()
		r.Stop()
	})
	return r
}

// start starts a script through a reaper.
func start(t *testing.T, r *Reaper, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	if err := r.Start(cmd); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// zombie reports whether a process has ended and nobody has waited for it.
func zombie(pid int) bool {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return strings.Contains(string(raw), ") Z ")
}

// alive reports whether a process has not ended.
func alive(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(raw), ") Z ")
}

// TestOrphansAreReaped while the command whose they were goes on, and after it.
func TestOrphansAreReaped(t *testing.T) {
	r := newReaper(t)
	cmd := start(t, r, `for i in 1 2 3 4; do (sleep 0.01 & echo $! >>pids); done; until [ -e may-end ]; do sleep 0.02; done
		(sleep 0.1 & echo $! >>pids)`)
	allGone := func(want int) func() bool {
		return func() bool {
			pids := strings.Fields(words("pids"))
			for _, text := range pids {
				var pid int
				if _, err := fmt.Sscan(text, &pid); err != nil || !gone(pid) {
					return false
				}
			}
			return len(pids) == want
		}
	}
	eventually(t, "no zombies beside the command", allGone(4))
	touch(t, "may-end")
	if err := r.Wait(cmd); err != nil {
		t.Error(err)
	}
	eventually(t, "no zombies after it", allGone(5))
}

// TestCommandsAreNotReapedAway though they are dead children until somebody waits for them: their exit codes are wanted.
// Who does not adopt orphans waits in the same way.
func TestCommandsAreNotReapedAway(t *testing.T) {
	for name, make := range map[string]func(*testing.T) *Reaper{
		"a reaper":  newReaper,
		"no reaper": func(*testing.T) *Reaper { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := make(t)
			for want := range 3 {
				cmd := start(t, r, fmt.Sprint("exit ", want))
				eventually(t, "its end", func() bool { return zombie(cmd.Process.Pid) })
				if r != nil {
					r.reap()
				}
				if _ = r.Wait(cmd); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
					t.Errorf("%v, want exit status %d", cmd.ProcessState, want)
				}
			}
		})
	}
}

// TestStraysAreAliveAndNobodyElses looks at a process with a session of its own: it is a stray when its parent has ended,
// and until it has ended itself. Commands are none.
func TestStraysAreAliveAndNobodyElses(t *testing.T) {
	r := newReaper(t)
	parent := start(t, r, "setsid sh -c 'echo $$ >stray; exec sleep 60' & until [ -e may-end ]; do sleep 0.02; done")
	eventually(t, "the stray", func() bool { return words("stray") != "" })
	if got := r.Strays(); len(got) != 0 {
		t.Errorf("with its parent: %v", got)
	}
	touch(t, "may-end")
	if err := r.Wait(parent); err != nil {
		t.Error(err)
	}
	stray := number(t, "stray")
	if got := r.Strays(); !slices.Equal(got, []int{stray}) {
		t.Errorf("without its parent: %v, want %d", got, stray)
	}
	signalled := syscall.Kill(stray, syscall.SIGKILL)
	eventually(t, "that it is none", func() bool { return len(r.Strays()) == 0 })
	if signalled != nil {
		t.Error(signalled)
	}
}

// TestAZombieIsNoStray for it does not run, and has no token. The work is ended here, so nobody reaps it.
func TestAZombieIsNoStray(t *testing.T) {
	r := NewReaper(true)
	r.Stop()
	select {
	case <-r.ended:
	default:
		t.Error("the work goes on")
	}
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its end", func() bool { return zombie(cmd.Process.Pid) })
	if got := r.Strays(); len(got) != 0 {
		t.Errorf("strays: %v", got)
	}
	if err := cmd.Wait(); err != nil {
		t.Error("it was reaped:", err)
	}
}

// TestNoReaper is what a process has that is not PID 1, and does not adopt orphans. It only starts and waits.
func TestNoReaper(t *testing.T) {
	r := NewReaper(false)
	if r != nil {
		t.Fatal("there is one")
	}
	if got := r.Strays(); got != nil {
		t.Errorf("strays: %v", got)
	}
	if err := r.Start(exec.Command("/no/such/program")); err == nil {
		t.Error("no error")
	}
	r.Stop()
}

// TestAReaperForgetsCommands that could not be started, or have ended: another process may get the number.
func TestAReaperForgetsCommands(t *testing.T) {
	r := newReaper(t)
	if err := r.Start(exec.Command("/no/such/program")); err == nil {
		t.Error("no error")
	}
	_ = r.Wait(start(t, r, "exit 1"))
	if len(r.spared) != 0 {
		t.Errorf("remembered: %v", r.spared)
	}
}

// TestTheNameOfAProcessMayBeAnything also one that looks like the rest of the line.
func TestTheNameOfAProcessMayBeAnything(t *testing.T) {
	us, other := os.Getpid(), os.Getpid()+1
	for line, want := range map[string]struct {
		state string
		ours  bool
	}{
		fmt.Sprintf("7 (sh) S %d 7 7", us):                  {"S", true},
		fmt.Sprintf("7 (sh) Z %d 7 7", us):                  {"Z", true},
		fmt.Sprintf("7 (sh) S %d 7 7", other):               {"S", false},
		fmt.Sprintf("7 (a (b) Z %d) S %d 7 7", us, other):   {"S", false},
		fmt.Sprintf("7 (a\n) Z %d 7 ) S %d 7 7", other, us): {"S", true},
		fmt.Sprintf("7 (tmux: server) R %d%d 7 7", us, us):  {"R", false},
		"":         {"", false},
		"7 (sh) S": {"", false},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
		if state, ours := stateOf(dir); state != want.state || ours != want.ours {
			t.Errorf("%q: state %q, ours %v", line, state, ours)
		}
	}
	if state, ours := stateOf(filepath.Join(t.TempDir(), "gone")); state != "" || ours {
		t.Errorf("a process that has gone: state %q, ours %v", state, ours)
	}
}

// TestASessionOfItsOwnSavesNoProcess from the end of the command that has started it, be that wanted or not. It is asked
// once, and killed after the time for that.
func TestASessionOfItsOwnSavesNoProcess(t *testing.T) {
	for _, c := range []struct {
		name      string
		script    string
		killAfter time.Duration
		stop      bool
		asked     string
	}{
		{
			name:      "the command ends",
			script:    "trap 'echo asked >>asked; ending=1' TERM",
			killAfter: time.Hour,
			asked:     "asked",
		},
		{
			name:      "somebody ends it",
			script:    "trap 'echo asked >>asked; ending=1' TERM",
			killAfter: time.Hour,
			stop:      true,
			asked:     "asked",
		},
		{
			name:      "it cannot be asked",
			script:    "trap '' TERM",
			killAfter: 100 * time.Millisecond,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			// It takes a while to end: long enough to be asked again, if somebody did that.
			stray := c.script + "\necho $$ >stray; while [ -z $ending ]; do sleep 0.02; done; for i in 1 2 3 4 5; do sleep 0.02; done\n"
			path := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(path, []byte(stray), 0o644); err != nil {
				t.Fatal(err)
			}
			x := newTrial(t, Config{KillAfter: c.killAfter}, "setsid sh "+path+" & trap 'exit 5' TERM\n"+
				"until [ -s stray ]; do sleep 0.02; done; echo >ready; until [ -e may-end ]; do sleep 0.02; done; exit 6")
			x.run()
			eventually(t, "a start", func() bool { _, err := os.Stat("ready"); return err == nil })
			want := 6
			if c.stop {
				x.stop()
				want = 5
			} else {
				touch(t, "may-end")
			}
			x.wantCode(want)
			x.wantEnds(1, c.stop)
			if alive(number(t, "stray")) {
				t.Error("it lives on")
			}
			if got := words("asked"); got != c.asked {
				t.Errorf("it was asked to end: %q", got)
			}
		})
	}
}

// TestARestartEndsASessionOfItsOwn between the one command and the next, and not while the first may need it.
func TestARestartEndsASessionOfItsOwn(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	text := "trap 'echo session$N >>seen; exit' TERM; echo >ready; while :; do sleep 0.02; done"
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	x := newTrial(t, Config{Restart: true}, "(setsid sh "+script+` &) ; until [ -e ready ]; do sleep 0.02; done; rm ready
		trap 'sleep 0.1; echo end$N >>seen; exit' TERM; echo start$N >>seen; while :; do sleep 0.02; done`)
	x.run("N=1")
	x.wrote("seen", "start1")
	x.Vars([]string{"N=2"})
	x.wrote("seen", "start1 end1 session1 start2")
}

// TestWithoutAReaperASessionOfItsOwnIsNotOurs but somebody else's, as the process is.
func TestWithoutAReaperASessionOfItsOwnIsNotOurs(t *testing.T) {
	x := newTrial(t, Config{KillAfter: time.Millisecond},
		"setsid sh -c 'echo $$ >stray; exec sleep 60' & until [ -s stray ]; do sleep 0.02; done")
	x.cfg.Reaper.Stop()
	x.cfg.Reaper = nil
	x.run()
	x.wantCode(0)
	x.wantEnds(0, false)
	if stray := number(t, "stray"); !slices.Contains(new(Reaper).Strays(), stray) {
		t.Error("it was ended")
	}
}

// TestAStoppedCommandIsNamed and another word is said when it goes on. One that is stopped can end in order.
func TestAStoppedCommandIsNamed(t *testing.T) {
	x := newTrial(t, Config{}, "trap 'exit 3' TERM; echo $$ >command; while :; do sleep 0.02; done")
	x.run()
	eventually(t, "a start", func() bool { return words("command") != "" })
	command := number(t, "command")
	for i, c := range []struct {
		sig  syscall.Signal
		says string
	}{
		{syscall.SIGSTOP, "the command is stopped"},
		{syscall.SIGCONT, "the command goes on"},
		{syscall.SIGSTOP, "the command is stopped"},
	} {
		if err := syscall.Kill(command, c.sig); err != nil {
			t.Fatal(err)
		}
		eventually(t, c.says, func() bool { return strings.Count(x.log.String(), c.says) == 1+i/2 })
	}
	x.stop()
	x.wantCode(3)
}

// TestOnlyAChildCanBeLookedAt so nothing is known of others.
func TestOnlyAChildCanBeLookedAt(t *testing.T) {
	if stopped, continued := lookAt(os.Getpid()); stopped || continued {
		t.Errorf("stopped %v, continued %v", stopped, continued)
	}
}
