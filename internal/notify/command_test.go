package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// event has a time in a zone of its own.
var event = Event{
	Key:        "fleet",
	Generation: 3,
	Name:       "injector-3",
	Expiry:     time.Date(2030, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600)),
}

// starter counts the commands that are started and waited for through it.
type starter struct{ starts, waits atomic.Int32 }

func (s *starter) Start(cmd *exec.Cmd) error { s.starts.Add(1); return cmd.Start() }
func (s *starter) Wait(cmd *exec.Cmd) error  { s.waits.Add(1); return cmd.Wait() }

// eventually waits for something that is about to happen.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for began := time.Now(); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// TestACommandHasTheEventInItsEnvironment beside its own, and nothing of this process's.
func TestACommandHasTheEventInItsEnvironment(t *testing.T) {
	t.Setenv("OURS", "ours")
	seen := filepath.Join(t.TempDir(), "seen")
	script := `echo "$TOKEN_GENERATION,$TOKEN_NAME,$TOKEN_EXPIRY,$TOKEN_KEY,$GIVEN,$OURS,$1" >` + seen
	var s starter
	c := &Command{
		Args:    []string{"sh", "-c", script, "sh", "an argument"},
		Environ: []string{"GIVEN=given", "TOKEN_NAME=another"},
		Starter: &s,
	}
	if err := c.Tell(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(seen)
	if got := strings.TrimSpace(string(raw)); got != "3,injector-3,2030-01-02T02:04:05Z,fleet,given,,an argument" {
		t.Errorf("it saw %s, %v", got, err)
	}
	if s.starts.Load() != 1 || s.waits.Load() != 1 {
		t.Errorf("%d starts and %d waits of its starter", s.starts.Load(), s.waits.Load())
	}
}

// TestWhatACommandPrintsIsNotShown neither on this process's outputs nor in an error: it may be the token.
func TestWhatACommandPrintsIsNotShown(t *testing.T) {
	shown, err := os.Create(filepath.Join(t.TempDir(), "shown"))
	if err != nil {
		t.Fatal(err)
	}
	defer func(out, err *os.File) {
		os.Stdout, os.Stderr = out, err
		_ = shown.Close()
	}(os.Stdout, os.Stderr)
	os.Stdout, os.Stderr = shown, shown
	c := &Command{Args: []string{"sh", "-c", "echo the token; echo the token >&2; exit 3"}, Starter: new(starter)}
	err = c.Tell(t.Context(), event)
	if err == nil || err.Error() != "it ended with exit status 3" {
		t.Errorf("error %v", err)
	}
	if raw, err := os.ReadFile(shown.Name()); err != nil || len(raw) > 0 {
		t.Errorf("shown: %q, %v", raw, err)
	}
}

// TestACommandThatFails is one that cannot be started, or ends otherwise than well.
func TestACommandThatFails(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "program")
	for _, c := range []struct {
		args []string
		is   error
		want string
	}{
		{[]string{"no-such-program"}, exec.ErrNotFound, `exec: "no-such-program": executable file not found in $PATH`},
		{[]string{missing}, fs.ErrNotExist, "fork/exec " + missing + ": no such file or directory"},
		{[]string{"sh", "-c", "exit 1"}, nil, "it ended with exit status 1"},
		{[]string{"sh", "-c", "kill -KILL $$"}, nil, "it ended with signal: killed"},
	} {
		err := (&Command{Args: c.args, Starter: new(starter)}).Tell(t.Context(), event)
		if err == nil || err.Error() != c.want || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%q: error %v", c.args, err)
		}
	}
}

// untilTold is a context that ends when a test wants that, in the way that it wants.
type untilTold struct {
	context.Context
	done chan struct{}
	err  error
}

func (c *untilTold) Done() <-chan struct{} { return c.done }

func (c *untilTold) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// TestACommandThatTakesTooLongIsKilled with all that it has started, even if it does not want to end. So is one when the
// whole process ends, which is not said to have taken too long.
func TestACommandThatTakesTooLongIsKilled(t *testing.T) {
	for _, c := range []struct {
		why  error
		want string
	}{
		{context.DeadlineExceeded, "it took too long and was killed with all that it had started"},
		{context.Canceled, "it ended with signal: killed"},
	} {
		t.Run(c.why.Error(), func(t *testing.T) {
			dir := t.TempDir()
			held, ready := filepath.Join(dir, "held"), filepath.Join(dir, "ready")
			if err := syscall.Mkfifo(held, 0o600); err != nil {
				t.Fatal(err)
			}
			pipe, err := os.OpenFile(held, os.O_RDONLY|syscall.O_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = pipe.Close() }()
			command := &Command{
				Args: []string{"sh", "-c", "trap '' TERM INT HUP; exec 9>" + held + "; " +
					"sleep 60 & echo $$ >" + ready + "; wait; sleep 60"},
				Starter: new(starter),
			}
			ctx := &untilTold{Context: t.Context(), done: make(chan struct{}), err: c.why}
			told := make(chan error)
			go func() { told <- command.Tell(ctx, event) }()
			group := 0
			eventually(t, "a start", func() bool {
				raw, _ := os.ReadFile(ready)
				n, _ := fmt.Sscan(string(raw), &group)
				return n == 1
			})
			close(ctx.done)
			if err := <-told; err == nil || err.Error() != c.want {
				t.Errorf("error %v", err)
			}
			// The pipe ends with the last process that has it.
			_ = pipe.SetReadDeadline(time.Now().Add(30 * time.Second))
			if _, err := io.ReadAll(pipe); err != nil {
				t.Errorf("something lives on: %v", err)
				_ = syscall.Kill(-group, syscall.SIGKILL)
			}
		})
	}
}

// TestACommandIsNamedWithoutItsArguments which may be secrets.
func TestACommandIsNamedWithoutItsArguments(t *testing.T) {
	c := &Command{Args: []string{"/usr/local/bin/reload", "--password", "secret"}}
	if got := c.String(); got != "command reload" {
		t.Errorf("its name is %q", got)
	}
}
