package main

import (
	"errors"

	"github.com/balena-injector/injector/internal/sidecar"
)

func runRun(in *invocation) error {
	if err := in.flags("run", nil); err != nil {
		return err
	}
	err := in.with("run", func(a *sidecar.App) error { return a.Run(in.stop, in.kill) })
	if errors.Is(err, sidecar.ErrStopped) {
		return nil
	}
	return err
}
