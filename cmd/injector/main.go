// Command injector keeps one live balena API key in a file in memory for an app: it mints a
// short-lived key, extends it in place, replaces it before it is too old, and revokes it at the
// end. It is configured by environment variables; see `injector help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/key"
)

// exitCode is how the program ends. The numbers are part of the contract with orchestrators.
type exitCode int

const (
	exitDone    exitCode = 0 // done
	exitFailed  exitCode = 1 // failed; trying again may help
	exitConfig  exitCode = 2 // the configuration is wrong
	exitRefused exitCode = 3 // balena refused the credential
	exitLeft    exitCode = 4 // stopped, but keys that could have been revoked were left to expire
)

func main() {
	protect()
	beThrifty(1)
	stop, kill, quit := signals()
	stderr := newPatientWriter(os.Stderr)
	code := run(stop, kill, os.Args[1:], os.Environ(), os.Stdout, stderr)
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
	// Whoever reads the log may go away; the keys must still be revoked. Caught and not ignored: what
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

// fewKeys is up to how many keys one processor is enough for: they wait for the server nearly all the time.
const fewKeys = 50

// beThrifty makes the garbage collector thrifty, and the scheduler: what this program holds is small, and its users count
// megabytes and milliseconds. With one processor an idle injector wakes one thread where it would wake several. GOGC,
// GOMEMLIMIT and GOMAXPROCS still win.
func beThrifty(keys int) {
	switch {
	case os.Getenv("GOMAXPROCS") != "":
	case keys <= fewKeys:
		runtime.GOMAXPROCS(1)
	default:
		runtime.SetDefaultGOMAXPROCS()
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(8<<20 + int64(keys)*(22<<10)) // with less it would collect all the time
	}
}

// invocation is one call of the program.
type invocation struct {
	stop, kill     context.Context
	args           []string
	environ        []string
	stdout, stderr io.Writer
}

// run is the program without the process around it.
func run(stop, kill context.Context, args, environ []string, stdout, stderr io.Writer) exitCode {
	if len(args) == 0 {
		printUsage(stderr)
		return exitConfig
	}
	name, rest := args[0], args[1:]
	switch name {
	case "-h", "-help", "--help":
		name = "help"
	case "-v", "-version", "--version":
		name = "version"
	}
	cmd := findCommand(name)
	if cmd == nil {
		_, _ = fmt.Fprintf(stderr, "injector: there is no command %q%s; `injector help` lists them\n", name, suggestCommand(name))
		return exitConfig
	}
	err := cmd.run(&invocation{stop: stop, kill: kill, args: rest, environ: environ, stdout: stdout, stderr: stderr})
	if err != nil && !errors.As(err, new(silentError)) {
		tell(stderr, name, err)
	}
	return codeOf(err)
}

// tell says why a command failed, in the form that the log has.
func tell(stderr io.Writer, name string, err error) {
	advice := advise(err)
	if strings.EqualFold(os.Getenv("INJECTOR_LOG_FORMAT"), "json") {
		log := newLog(stderr, slog.LevelError, true).With("command", name, "exit_code", int(codeOf(err)))
		if advice != "" {
			log = log.With("fix", advice)
		}
		log.Error(err.Error())
		return
	}
	_, _ = fmt.Fprintf(stderr, "injector %s: %v\n", name, err)
	if advice != "" {
		_, _ = fmt.Fprintf(stderr, "  fix: %s\n", advice)
	}
}

// silentError is an error that was told already.
type silentError struct{ code exitCode }

func (s silentError) Error() string { return fmt.Sprintf("exit code %d", s.code) }

// codeOf returns the exit code for an error.
func codeOf(err error) exitCode {
	var silent silentError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &silent):
		return silent.code
	case errors.As(err, new(configError)):
		return exitConfig
	case key.Is(err, key.Refused), key.Is(err, key.FreshLogin):
		return exitRefused
	case errors.As(err, new(*agent.LeftError)):
		return exitLeft
	}
	return exitFailed
}
