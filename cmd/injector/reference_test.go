package main

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/balena-injector/injector/internal/config"
)

var update = flag.Bool("update", false, "write the pages in docs anew that are made from the code")

const referenceFile = "../../docs/configuration.md"

// TestReference compares the reference of variables and commands with the code.
func TestReference(t *testing.T) {
	comparePage(t, referenceFile, reference())
}

func reference() string {
	var out strings.Builder
	out.WriteString(`# Configuration

Environment variables only. An empty one counts as unset. Durations are numbers with units: 90s,
15m, 1h30m, 7d. Names that begin with INJECTOR_ and are not listed here are errors, but for those
that Kubernetes makes for a service called injector. This page is made from the code.

| variable | default | meaning |
|---|---|---|
`)
	for _, v := range config.Variables() {
		value := v.Default
		if value != "" {
			value = "`" + value + "`"
		}
		if v.Usual != "" {
			value = "(" + v.Usual + ")"
		}
		_, _ = fmt.Fprintf(&out, "| `%s` | %s | %s |\n", v.Name, value, v.Does)
	}
	for _, c := range config.Credentials() {
		name := "`" + c.Name + "` or `" + c.Name + "_FILE`"
		if c.FileOnly {
			name = "`" + c.Name + "_FILE`"
		}
		_, _ = fmt.Fprintf(&out, "| %s | | %s |\n", name, c.Does)
	}
	_, _ = fmt.Fprintf(&out, "\n%s.\n", strings.ToUpper(config.OtherNames[:1])+config.OtherNames[1:])
	out.WriteString(`
A ` + "`_FILE`" + ` variable names a file with the credential; one line break at its end does not belong to
it. The file is watched (also when a Kubernetes Secret is updated) and read again. The usual proxy
variables (` + "`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`" + `) are obeyed. ` + "`GOGC` and `GOMEMLIMIT`" + ` win over the thrifty
settings that the program gives itself.

## Commands

| command | does | exit |
|---|---|---|
`)
	for _, c := range commands() {
		_, _ = fmt.Fprintf(&out, "| `injector %s` | %s | %s |\n", strings.TrimSpace(c.name+" "+c.args), c.does, c.exits)
	}
	_, _ = fmt.Fprintf(&out, "\nExit codes: 0 done; %s.\n", commonExits)
	return out.String()
}
