package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a pseudo-terminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	open := func(name string) *os.File {
		t.Helper()
		f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	master = open("/dev/ptmx")
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return master, open(fmt.Sprint("/dev/pts/", n))
}

// TestWhoHasATerminal starts supervisors that lead a session, with and without a terminal, and looks at the process group
// of their command: on a terminal it is the supervisor's, so that the keys reach both, and else its own. PID 1 has no
// shell above it: its command has the terminal for itself, and signals are passed on to it. All of them reap orphans.
func TestWhoHasATerminal(t *testing.T) {
	const (
		command = `interrupted() { echo interrupted >>seen; exit 5; }
			trap interrupted INT
			read pid name state parent group session terminal foreground rest </proc/$$/stat
			[ $group = $pid ] && echo own >>seen || echo shared >>seen
			[ $group = $foreground ] && echo foreground >>seen || echo background >>seen
			(sleep 0.01 & echo $! >orphan)
			i=0; while kill -0 $(cat orphan) 2>errors && [ $i -lt 500 ]; do i=$((i+1)); sleep 0.02; done
			[ $i -lt 500 ] && echo reaped >>seen || echo zombie >>seen
			echo ready >>seen
			read line && echo $line >>seen; exit 4`
		typed     = "typed\n"
		interrupt = "\x03" // control and C
	)
	for _, c := range []struct {
		name       string
		noTerminal bool
		mount      string // done before, in mounts of its own
		pid1       bool
		keys       string
		signal     syscall.Signal
		want       string
		code       int
	}{
		{
			name: "a terminal",
			keys: typed,
			want: "shared foreground reaped ready typed",
			code: 4,
		},
		{
			name: "a key that interrupts",
			keys: interrupt,
			want: "shared foreground reaped ready interrupted",
			code: 5,
		},
		{
			name:  "a terminal as standard input, without /dev",
			mount: "-t tmpfs none /dev",
			keys:  typed,
			want:  "shared foreground reaped ready typed",
			code:  4,
		},
		{
			name:       "no terminal",
			noTerminal: true,
			signal:     syscall.SIGINT,
			want:       "own background reaped ready interrupted",
			code:       5,
		},
		{
			name:  "PID 1 on a terminal",
			mount: "-t proc proc /proc",
			pid1:  true,
			keys:  typed,
			want:  "own foreground reaped ready typed",
			code:  4,
		},
		{
			name:   "a signal for PID 1 on a terminal",
			mount:  "-t proc proc /proc",
			pid1:   true,
			signal: syscall.SIGINT,
			want:   "own foreground reaped ready interrupted",
			code:   5,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			binary, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(t.TempDir())
			args := []string{binary, "sh", "-c", command}
			if c.mount != "" {
				args = append([]string{"sh", "-c", "mount " + c.mount + ` && exec "$0" "$@"`}, args...)
			}
			master, slave := openTerminal(t)
			var log buffer
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Env = append(os.Environ(), become+"=1")
			cmd.Stdout, cmd.Stderr = &log, &log
			cmd.WaitDelay = time.Second
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if c.noTerminal {
				if _, err := cmd.StdinPipe(); err != nil {
					t.Fatal(err)
				}
			} else {
				cmd.Stdin, cmd.SysProcAttr.Setctty = slave, true
			}
			if c.mount != "" {
				cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
			}
			if c.pid1 {
				cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
			}
			if err := cmd.Start(); c.mount != "" && errors.Is(err, syscall.EPERM) {
				t.Skip("this user may not make namespaces")
			} else if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = cmd.Wait()
			}()
			t.Cleanup(func() {
				_ = cmd.Process.Signal(syscall.SIGTERM)
				_ = cmd.Process.Signal(syscall.SIGCONT)
				select {
				case <-done:
				case <-time.After(patience):
					_ = cmd.Process.Kill()
				}
				<-done
				if t.Failed() {
					t.Logf("log:\n%s", &log)
				}
			})
			eventually(t, "a command that is ready", func() bool {
				select {
				case <-done:
					t.Fatalf("it has ended: %v", cmd.ProcessState)
				default:
				}
				return strings.HasSuffix(words("seen"), " ready")
			})
			if _, err := master.WriteString(c.keys); err != nil {
				t.Fatal(err)
			}
			if c.signal != 0 {
				if err := cmd.Process.Signal(c.signal); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case <-done:
			case <-time.After(patience):
				t.Fatal("it goes on")
			}
			if got := words("seen"); got != c.want || cmd.ProcessState.ExitCode() != c.code {
				t.Errorf("%v: %s; want exit status %d: %s", cmd.ProcessState, got, c.code, c.want)
			}
		})
	}
}

// TestOnlyATerminalIsOne and neither a file nor a device.
func TestOnlyATerminalIsOne(t *testing.T) {
	_, slave := openTerminal(t)
	if !isTerminal(slave) {
		t.Error("a terminal is none")
	}
	for _, name := range []string{t.TempDir(), "/proc/self/stat", os.DevNull} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if isTerminal(f) {
			t.Errorf("%s is a terminal", name)
		}
		_ = f.Close()
	}
}

// TestAShellHasWhatACommandOnATerminalLeavesBehind so it is not ended, be it that the command ends by itself or that it is
// told to.
func TestAShellHasWhatACommandOnATerminalLeavesBehind(t *testing.T) {
	for _, stop := range []bool{false, true} {
		t.Run(fmt.Sprint("told ", stop), func(t *testing.T) {
			x := newTrial(t, Config{}, "sleep 60 & trap 'exit 4' TERM; echo $! >left; until [ -e may-end ]; do sleep 0.02; done; exit 4")
			x.terminal = true
			x.run()
			eventually(t, "a start", func() bool { return words("left") != "" })
			ends := int32(0)
			if stop {
				x.stop()
				ends = 1
			} else {
				touch(t, "may-end")
			}
			x.wantCode(4)
			x.wantEnds(ends, stop)
			x.cfg.Reaper.Stop()
			x.cfg.Reaper = nil
			left := number(t, "left")
			_ = syscall.Kill(left, syscall.SIGKILL)
			var status syscall.WaitStatus
			if _, err := syscall.Wait4(left, &status, 0, nil); err != nil || status.Signal() != syscall.SIGKILL {
				t.Errorf("it was ended before: %v, %v", status.Signal(), err)
			}
		})
	}
}
