package main

import (
	"errors"
	"os/exec"

	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/sidecar"
)

// runExec is run with a command that has the token in its environment.
func runExec(in *invocation) (err error) {
	args, err := in.command("exec")
	if err != nil {
		return err
	}
	s, log, err := in.load(config.Options{Supervising: true})
	if err != nil {
		return err
	}
	if err := lookPath(args[0]); err != nil {
		return err
	}
	a, err := sidecar.NewExec(in.stop, in.process("exec"), s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return a.Exec(in.stop, in.kill, args)
}

// lookPath returns a problem if there is no such program.
func lookPath(program string) error {
	if _, err := exec.LookPath(program); err != nil {
		return config.Problems{
			{Variable: "the command", Rule: "cannot be run: " + err.Error(), Fix: "give a program in PATH or the path of one"},
		}
	}
	return nil
}
