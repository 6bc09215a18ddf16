// Command injector keeps one live balena API key in a file in memory for an app: it mints a
// short-lived key, extends it in place, replaces it before it is too old, and revokes it at the
// end. It is configured by environment variables; see `injector help`.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/config"
)

func main() {
	protect()
	beThrifty(1)
	stop, kill, quit := signals()
	stderr := newLogWriter(os.Stderr)
	code := run(&invocation{stop: stop, kill: kill, started: time.Now(), args: os.Args[1:], env: config.NewEnviron(os.Environ()),
		stdout: os.Stdout, stderr: stderr})
	stderr.flush(time.Second)
	quit()
	os.Exit(int(code))
}

// echo is how long after a signal another one is taken for the same: `timeout` signals its child and then the
// group, and a shell's Ctrl-C reaches a program that its parent forwards it to as well.
const echo = 100 * time.Millisecond

// signals turns signals into contexts: the first SIGTERM or SIGINT ends stop, a second one kill;
// SIGQUIT ends stop with agent.ErrHandOver as its cause.
func signals() (stop, kill context.Context, quit func()) {
	stop, end := context.WithCancelCause(context.Background())
	kill, abandon := context.WithCancel(context.Background())
	caught := make(chan os.Signal, 4)
	signal.Notify(caught, syscall.SIGTERM, os.Interrupt, syscall.SIGQUIT)
	// The reader of the log may go away; the keys must still be revoked. Caught and not ignored: what
	// is ignored would be so in children, too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go func() {
		var first time.Time
		for s := range caught {
			if stop.Err() == nil {
				first = time.Now()
			}
			switch {
			case stop.Err() != nil && time.Since(first) < echo:
			case stop.Err() != nil:
				abandon()
			case s == syscall.SIGQUIT:
				end(agent.ErrHandOver)
			default:
				end(fmt.Errorf("stopped by signal: %s", s))
			}
		}
	}()
	return stop, kill, func() { signal.Stop(caught); end(nil); abandon() }
}
