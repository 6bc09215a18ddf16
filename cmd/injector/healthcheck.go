package main

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/sidecar"
	"github.com/balena-injector/injector/internal/words"
)

func runHealthcheck(in *invocation) error {
	live, hold := false, time.Duration(0)
	err := in.flags("healthcheck", func(f *flag.FlagSet) {
		f.BoolVar(&live, "live", false, "")
		f.DurationVar(&hold, "hold", 0, "")
	})
	if err != nil {
		return err
	}
	if hold < 0 || hold > probe.MaxHold {
		return config.Problems{
			{Variable: "--hold", Rule: "is " + words.Short(hold), Fix: "give a duration of up to " + words.Short(probe.MaxHold)},
		}
	}
	at, err := in.place()
	if err != nil {
		return err
	}
	path := "/livez"
	if !live {
		path = "/readyz?" + url.Values{"output": at.Outputs, "hold": {hold.String()}}.Encode()
	}
	code, body, err := probe.Ask(in.stop, at.Dir, path, hold)
	if err != nil {
		r, err := sidecar.AtRest(at, err)
		if err != nil {
			return err
		}
		line := r.Line(time.Now())
		if live {
			line = "not alive" + strings.TrimPrefix(line, "not ready")
		}
		return errors.New(line)
	}
	text := strings.TrimSpace(string(body))
	if code != http.StatusOK {
		return errors.New(text)
	}
	_, err = fmt.Fprintln(in.stdout, text)
	return err
}
