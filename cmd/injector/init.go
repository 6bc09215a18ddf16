package main

import (
	"github.com/balena-injector/injector/internal/sidecar"
)

func runInit(in *invocation) error {
	if err := in.flags("init", nil); err != nil {
		return err
	}
	return in.with("init", func(a *sidecar.App) error { return a.Init(in.stop, in.kill) })
}
