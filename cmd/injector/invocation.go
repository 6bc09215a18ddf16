package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/sidecar"
)

// invocation is one call of the program.
type invocation struct {
	stop, kill     context.Context
	started        time.Time // of the process
	args           []string  // after the command's name
	env            config.Environ
	stdout, stderr io.Writer
}

// run is the program without the process around it. The arguments begin with the command's name.
func run(in *invocation) exitCode {
	if len(in.args) == 0 {
		printUsage(in.stderr)
		return exitConfig
	}
	name := in.args[0]
	in.args = in.args[1:]
	switch name {
	case "-h", "-help", "--help":
		name = "help"
	case "-v", "-version", "--version":
		name = "version"
	}
	cmd := findCommand(name)
	if cmd == nil {
		_, _ = fmt.Fprintf(in.stderr, "injector: there is no command %q%s; `injector help` lists them\n", name, suggestCommand(name))
		return exitConfig
	}
	err := cmd.run(in)
	if err != nil && !errors.As(err, new(sidecar.ExitError)) {
		in.tell(name, err)
	}
	return codeOf(err)
}

// load reads the configuration and takes the credentials out of the process's environment, which its children inherit.
func (in *invocation) load(o config.Options) (config.Settings, *slog.Logger, error) {
	o.Version = version()
	s, err := config.Read(in.env, o)
	if err != nil {
		return s, nil, err
	}
	for _, name := range s.Secrets() {
		_ = os.Unsetenv(name)
	}
	log := newLog(in.stderr, s.LogLevel, s.LogJSON)
	for _, w := range s.Warnings {
		log.Warn(w)
	}
	if len(s.Keys) > 1 { // it is for one already
		beThrifty(len(s.Keys))
	}
	return s, log, nil
}

// process is what others are told of this process.
func (in *invocation) process(command string) sidecar.Process {
	return sidecar.Process{Command: command, Version: version(), Revision: revision(), Started: in.started}
}

// with does a command's work with a sidecar that is wired for it.
func (in *invocation) with(command string, work func(*sidecar.App) error) error {
	s, log, err := in.load(config.Options{})
	if err != nil {
		return err
	}
	return in.wired(command, s, log, work)
}

// wired does work with a sidecar of these settings, and closes it.
func (in *invocation) wired(command string, s config.Settings, log *slog.Logger, work func(*sidecar.App) error) (err error) {
	a, err := sidecar.New(in.process(command), s, log)
	if err != nil {
		return err
	}
	defer func() {
		if !errors.Is(err, sidecar.ErrStuck) { // what hangs may hold a lock that Close wants; the end of the process does it all
			err = errors.Join(err, a.Close())
		}
	}()
	return work(a)
}

// command returns what follows a command's name, a -- before it being optional.
func (in *invocation) command(name string) ([]string, error) {
	args := in.args
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	} else if len(args) > 0 && len(args[0]) > 0 && args[0][0] == '-' {
		return nil, in.flags(name, nil)
	}
	if len(args) == 0 {
		return nil, config.Problems{
			{
				Variable: "injector " + name,
				Rule:     "has no command to run",
				Fix:      "write it after --, such as: injector " + name + " -- my-app",
			},
		}
	}
	return args, nil
}
