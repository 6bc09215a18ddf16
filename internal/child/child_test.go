package child

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// become makes the test binary supervise the command in its arguments, as exec does.
const become = "TEST_BECOME_SUPERVISOR"

func TestMain(m *testing.M) {
	useDefaultSignals()
	if os.Getenv(become) != "" {
		supervise(os.Args[1:])
	}
	os.Exit(m.Run())
}

// useDefaultSignals makes commands react to signals as usual, also where nohup or a script's & has made them ignored:
// what is caught here is at its default there.
func useDefaultSignals() {
	for _, sig := range Passed() {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
}

// supervise is what a test binary does that is PID 1, or on a terminal, or neither.
func supervise(args []string) {
	s := New(Config{
		Args:      args,
		Environ:   os.Environ(),
		KillAfter: time.Minute,
		Reaper:    NewReaper(os.Getpid() != 1),
		Log:       slog.Default(),
	})
	s.Vars(nil)
	code, err := s.Run(context.Background(), func() {})
	if err != nil {
		panic(err)
	}
	os.Exit(code)
}

// trial is a supervisor of a shell's script, and what can be seen of both. The script runs in a directory of its own.
type trial struct {
	*Supervisor
	t    *testing.T
	log  *buffer
	ctx  context.Context
	stop context.CancelFunc
	ends atomic.Int32  // how often onEnd was called
	done chan struct{} // nil: Run was not called
	code int
	err  error
}

// newTrial makes a supervisor with a reaper, as exec has one. Nothing that it starts outlives the test. These tests may
// be run on a terminal, which is not the script's.
func newTrial(t *testing.T, cfg Config, script string) *trial {
	t.Helper()
	t.Chdir(t.TempDir())
	x := &trial{t: t, log: &buffer{}}
	cfg.Args = []string{"sh", "-c", script}
	cfg.Environ = append(cfg.Environ, "PATH="+os.Getenv("PATH"))
	cfg.KillAfter = cmp.Or(cfg.KillAfter, time.Minute)
	cfg.Log = slog.New(slog.NewTextHandler(x.log, nil))
	cfg.Reaper = NewReaper(true)
	x.Supervisor = New(cfg)
	x.terminal, x.onEnd = false, func() { x.ends.Add(1) }
	x.ctx, x.stop = context.WithCancel(t.Context())
	t.Cleanup(func() {
		x.stop()
		for began := time.Now(); x.running() && time.Since(began) < patience; time.Sleep(5 * time.Millisecond) {
			endChildren()
		}
		endChildren()
		x.cfg.Reaper.Stop()
		signal.Stop(x.caught)
		signal.Stop(x.children)
		if t.Failed() {
			t.Logf("log:\n%s", x.log)
		}
	})
	return x
}

// endChildren kills all children of this process, and what they leave to it.
func endChildren() {
	for began := time.Now(); len(new(Reaper).Strays()) > 0 && time.Since(began) < patience; time.Sleep(5 * time.Millisecond) {
		for _, pid := range new(Reaper).Strays() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// run lets the supervisor work, with those first variables.
func (x *trial) run(vars ...string) {
	x.Vars(vars)
	x.runWithoutVars()
}

func (x *trial) runWithoutVars() {
	x.done = make(chan struct{})
	go func() {
		defer close(x.done)
		x.code, x.err = x.Run(x.ctx, x.onEnd)
	}()
}

// running reports whether Run has not returned.
func (x *trial) running() bool {
	select {
	case <-x.done:
		return false
	default:
		return x.done != nil
	}
}

// wantCode waits for the end of the command.
func (x *trial) wantCode(want int) {
	x.t.Helper()
	x.wantEnd(want, nil)
}

// wantEnd waits for the end of Run.
func (x *trial) wantEnd(code int, err error) {
	x.t.Helper()
	wait(x.t, "the end of Run", x.done)
	if x.code != code || !errors.Is(x.err, err) {
		x.t.Errorf("exit code %d, error %v; want %d, %v", x.code, x.err, code, err)
	}
}

// wantEnds tells how often the end has begun, and whether somebody wanted that.
func (x *trial) wantEnds(ends int32, told bool) {
	x.t.Helper()
	if got := x.ends.Load(); got != ends || x.Told() != told {
		x.t.Errorf("onEnd was called %d times, told %v; want %d, %v", got, x.Told(), ends, told)
	}
}

// says waits for something in the log.
func (x *trial) says(text string) {
	x.t.Helper()
	eventually(x.t, text, func() bool { return strings.Contains(x.log.String(), text) })
}

// wrote waits for these words in a file.
func (x *trial) wrote(name, want string) {
	x.t.Helper()
	eventually(x.t, fmt.Sprintf("%q in %s", want, name), func() bool { return words(name) == want })
}

// patience is for what takes milliseconds, on a machine that has much else to do.
const patience = time.Minute

// eventually waits for something that is about to happen.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for began := time.Now(); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// wait waits for the end of something.
func wait(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("in vain: %s", what)
	}
}

// words are what a script has written to a file, on however many lines.
func words(name string) string {
	raw, _ := os.ReadFile(name)
	return strings.Join(strings.Fields(string(raw)), " ")
}

// touch makes a file that a script waits for.
func touch(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// number is the process number in a file.
func number(t *testing.T, name string) (pid int) {
	t.Helper()
	if _, err := fmt.Sscan(words(name), &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

// gone reports whether there is no such process, not even a zombie.
func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// raise sends this process a signal.
func raise(t *testing.T, sig os.Signal) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), sig.(syscall.Signal)); err != nil {
		t.Fatal(err)
	}
}

// buffer is a log.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// TestTheCodeIsAsAShellTells has commands that end by themselves, which nobody has to be told of.
func TestTheCodeIsAsAShellTells(t *testing.T) {
	for script, want := range map[string]int{
		"exit 0":        0,
		"exit 7":        7,
		"kill -KILL $$": 128 + 9,
		"kill -TERM $$": 128 + 15,
	} {
		t.Run(script, func(t *testing.T) {
			x := newTrial(t, Config{}, script)
			x.run()
			x.wantCode(want)
			x.wantEnds(0, false)
		})
	}
}

// TestTheCommandHasTheNewestVariables hands over three sets of variables while nobody takes them, which must not block.
// A variable of the configuration that is also among them has their value, and this process's environment is not the
// command's.
func TestTheCommandHasTheNewestVariables(t *testing.T) {
	t.Setenv("OURS", "ours")
	x := newTrial(t, Config{Environ: []string{"KEPT=kept", "TOKEN=configured"}}, `echo "$KEPT,$TOKEN,$ONCE,$OURS" >seen`)
	handed := make(chan struct{})
	go func() {
		defer close(handed)
		x.Vars([]string{"TOKEN=first", "ONCE=first"})
		x.Vars([]string{"TOKEN=second"})
		x.Vars([]string{"TOKEN=third"})
	}()
	wait(t, "that they are handed over", handed)
	x.runWithoutVars()
	x.wantCode(0)
	if got := words("seen"); got != "kept,third,," {
		t.Errorf("the command saw %q", got)
	}
}

// TestAStopBeforeTheStart is not a failure: nothing was started that could have failed.
func TestAStopBeforeTheStart(t *testing.T) {
	x := newTrial(t, Config{}, "exit 1")
	x.stop()
	x.runWithoutVars()
	x.wantEnd(0, ErrNotStarted)
	x.wantEnds(0, false)
}

// TestASignalBeforeTheStart comes before Run is called: signals are caught since New. Those that do not ask for the end
// do not end it.
func TestASignalBeforeTheStart(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		t.Run(sig.String(), func(t *testing.T) {
			x := newTrial(t, Config{}, "exit 1")
			for i, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, sig} {
				raise(t, sig)
				eventually(t, sig.String(), func() bool { return len(x.caught) == i+1 })
			}
			x.runWithoutVars()
			x.wantEnd(128+int(sig), ErrNotStarted)
			x.wantEnds(0, false)
		})
	}
}

// TestWhatCannotBeStartedIsNamed in words that are not about this program's insides.
func TestWhatCannotBeStartedIsNamed(t *testing.T) {
	x := newTrial(t, Config{}, "")
	if err := os.WriteFile("broken", []byte{0x7f}, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		program string
		want    string
		is      error
	}{
		{"no-such-program", "start no-such-program: executable file not found in $PATH", exec.ErrNotFound},
		{"./broken", "start ./broken: fork/exec ./broken: exec format error", syscall.ENOEXEC},
	} {
		x.cfg.Args = []string{c.program}
		x.Vars(nil)
		code, err := x.Run(x.ctx, x.onEnd)
		if code != 0 || !errors.Is(err, c.is) || err.Error() != c.want {
			t.Errorf("%s: exit code %d, error %v", c.program, code, err)
		}
	}
}

// recorder is a script that writes down the signals it gets, but for the one that lets it go on. When it is told to end it
// does something else before.
func recorder(file, last string) string {
	return `for s in HUP QUIT USR1 USR2 ALRM WINCH; do trap "echo $s >>` + file + `" $s; done
		trap "echo TERM >>` + file + "; " + last + `; exit 3" TERM
		echo ready >>` + file + `; while :; do sleep 0.02; done`
}

// TestSignalsArePassedToTheCommandAlone and the one to end with, to all that it started: a command may wait for that.
func TestSignalsArePassedToTheCommandAlone(t *testing.T) {
	x := newTrial(t, Config{}, "("+recorder("child", ":")+") & until [ -s child ]; do sleep 0.02; done\n"+
		recorder("command", "until grep -q TERM child; do sleep 0.02; done"))
	x.run()
	want := "ready"
	x.wrote("command", want)
	for _, c := range []struct {
		sig  os.Signal
		name string
	}{
		{syscall.SIGHUP, "HUP"},
		{syscall.SIGQUIT, "QUIT"},
		{syscall.SIGUSR1, "USR1"},
		{syscall.SIGUSR2, "USR2"},
		{syscall.SIGALRM, "ALRM"},
		{syscall.SIGWINCH, "WINCH"},
		{syscall.SIGTERM, "TERM"},
	} {
		want += " " + c.name
		raise(t, c.sig)
		x.wrote("command", want)
	}
	x.wantCode(3)
	if got := words("child"); got != "ready TERM" {
		t.Errorf("what the command has started got: %s", got)
	}
	x.wantEnds(1, true)
}

// TestWhatIsIgnoredStaysIgnored has a signal that was ignored before, as nohup does.
func TestWhatIsIgnoredStaysIgnored(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)
	t.Cleanup(func() {
		undo := make(chan os.Signal, 1)
		signal.Notify(undo, syscall.SIGHUP)
		signal.Stop(undo)
	})
	x := newTrial(t, Config{}, "kill -HUP $$; exit 5")
	x.run()
	x.wantCode(5)
}

// TestTheKeysOfATerminalAreNotPassedOn because the command has got them from there. Others are.
func TestTheKeysOfATerminalAreNotPassedOn(t *testing.T) {
	x := newTrial(t, Config{}, "trap 'echo INT >>seen' INT; trap 'echo CONT >>seen' CONT\n"+recorder("seen", ":"))
	x.terminal = true
	x.run()
	x.wrote("seen", "ready")
	var want strings.Builder
	want.WriteString("ready")
	for range 2 { // what came with the first would be seen by the second
		for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH, syscall.SIGCONT} {
			x.caught <- sig
		}
		raise(t, syscall.SIGUSR1)
		want.WriteString(" USR1")
		x.wrote("seen", want.String())
	}
	if got := x.ends.Load(); got != 0 {
		t.Errorf("onEnd was called %d times", got)
	}
	raise(t, syscall.SIGTERM)
	x.wantCode(3)
	x.wantEnds(1, true)
}

// TestSomeSignalsAreImpatience has signals that come after Run: a further one that asks for the end means haste, and
// one that belongs to the first does not.
func TestSomeSignalsAreImpatience(t *testing.T) {
	for _, c := range []struct {
		name   string
		sig    os.Signal
		after  time.Duration
		before bool // Impatient is called after it
		want   bool
	}{
		{name: "TERM", sig: syscall.SIGTERM, after: echo, want: true},
		{name: "INT", sig: syscall.SIGINT, after: echo, want: true},
		{name: "HUP", sig: syscall.SIGHUP, after: echo},
		{name: "QUIT", sig: syscall.SIGQUIT, after: echo},
		{name: "TERM with the first", sig: syscall.SIGTERM, after: echo - 1},
		{name: "INT with the first", sig: syscall.SIGINT, after: echo - 1},
		{name: "TERM while the command ended", sig: syscall.SIGTERM, after: time.Hour, before: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Supervisor{caught: make(chan os.Signal, 32), asked: time.Now()}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.before {
					time.Sleep(c.after)
					s.caught <- c.sig
				}
				calls, done := 0, make(chan struct{})
				go func() {
					defer close(done)
					s.Impatient(ctx, func() { calls++ })
				}()
				synctest.Wait()
				if !c.before {
					time.Sleep(c.after)
					s.caught <- c.sig
				}
				synctest.Wait()
				if called := calls == 1; called != c.want {
					t.Errorf("called %d times", calls)
				}
				cancel()
				<-done
			})
		})
	}
}
