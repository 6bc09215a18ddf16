package main

import (
	"flag"
	"fmt"

	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/sidecar"
)

// runCheck tries what run would do, up to the mint.
func runCheck(in *invocation) error {
	now := false
	if err := in.flags("check", func(f *flag.FlagSet) { f.BoolVar(&now, "now", false, "") }); err != nil {
		return err
	}
	say := func(kind, format string, args ...any) {
		_, _ = fmt.Fprintf(in.stdout, "%-3s %s\n", kind, fmt.Sprintf(format, args...))
	}
	s, log, err := in.load(config.Options{})
	if err != nil {
		return err
	}
	say("ok", "configuration")
	return in.wired("check", s, log, func(a *sidecar.App) error { return a.Check(in.stop, now, say) })
}
