package notify

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Command runs a program. It gets the environment and TOKEN_GENERATION, TOKEN_NAME, TOKEN_EXPIRY and
// TOKEN_KEY; never the token. What it prints is not shown: it may have read the token.
type Command struct {
	Args    []string // not empty
	Environ []string
	Starter Starter
}

// Starter starts commands and waits for them: see child.Reaper.
type Starter interface {
	Start(*exec.Cmd) error
	Wait(*exec.Cmd) error
}

// String names the program.
func (c *Command) String() string { return "command " + filepath.Base(c.Args[0]) }

// Tell runs the program in a process group of its own, which is killed when ctx is done.
func (c *Command) Tell(ctx context.Context, e Event) error {
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Env = append(append([]string(nil), c.Environ...), "TOKEN_GENERATION="+strconv.Itoa(e.Generation), "TOKEN_NAME="+e.Name,
		"TOKEN_EXPIRY="+e.Expiry.UTC().Format(time.RFC3339), "TOKEN_KEY="+e.Key)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := c.Starter.Start(cmd)
	if err == nil {
		err = c.Starter.Wait(cmd)
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errors.New("it took too long and was killed with all that it had started")
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("it ended with %v", exit.ProcessState)
	}
	return err
}
