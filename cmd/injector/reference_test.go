package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/words"
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
that Kubernetes makes for a service called injector. ` + "`injector help NAME`" + ` explains a variable in a terminal. This page is made
from the code.
`)
	for _, g := range config.Groups() {
		_, _ = fmt.Fprintf(&out, "\n## %s\n\n| variable | default | meaning |\n|---|---|---|\n", g.Title)
		for _, v := range g.Variables {
			value := v.Default
			if value != "" {
				value = "`" + value + "`"
			}
			if v.Usual != "" {
				value = "(" + v.Usual + ")"
			}
			name := "`" + v.Name + "`"
			if v.File != "" && v.File != v.Name {
				name += " or `" + v.File + "`"
			}
			_, _ = fmt.Fprintf(&out, "| %s | %s | %s |\n", name, value, v.Does)
		}
	}
	_, _ = fmt.Fprintf(&out, "\n%s\n", sentence(config.OtherNames))
	out.WriteString(`
A ` + "`_FILE`" + ` variable names a file with the credential; one line break at its end does not belong to
it. The file is watched (also when a Kubernetes Secret is updated) and read again. The usual proxy
variables (` + "`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`" + `) are obeyed. ` + "`GOGC`, `GOMEMLIMIT` and `GOMAXPROCS`" + ` win
over the thrifty settings that the program gives itself.

## Commands

| command | does | exit |
|---|---|---|
`)
	for _, c := range commands() {
		usage := strings.ReplaceAll(strings.TrimSpace(c.name+" "+c.args), "|", "\\|")
		_, _ = fmt.Fprintf(&out, "| `injector %s` | %s | %s |\n", usage, c.does, c.exits)
	}
	_, _ = fmt.Fprintf(&out, "\nExit codes: 0 done; %s.\n", commonExits)
	return out.String()
}

const manFile = "../../docs/injector.1"

// TestManPage compares the man page with the code, and lets groff read it.
func TestManPage(t *testing.T) {
	comparePage(t, manFile, manPage())
	if _, err := exec.LookPath("groff"); err != nil {
		if os.Getenv("CI_HAS_ALL") != "" {
			t.Fatal(err)
		}
		t.Skip("LEFT OUT: whether groff likes the man page; there is no groff")
	}
	out, err := exec.Command("groff", "-man", "-ww", "-Tutf8", "-z", manFile).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

// roff escapes a text for a man page: backslashes and hyphens, and dots and quotes that begin a line.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", "", "…", `\[u2026]`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

func manPage() string {
	var out strings.Builder
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(&out, format+"\n", args...) }
	text := func(paragraph string) { say("%s", roff(strings.Join(words.Wrap(paragraph, 100), "\n"))) }
	say(`.\" Made from the code: go test ./cmd/injector -run TestManPage -update`)
	say(`.TH INJECTOR 1 "" "balena token injector" "User Commands"`)
	say(".SH NAME\ninjector \\- keep one live balena API key in a file in memory for an app")
	say(".SH SYNOPSIS\n.B injector\n.I COMMAND")
	say(".SH DESCRIPTION")
	text("The injector logs in to balena, mints a short-lived API key, writes it into a file in memory (or renders it into any file that " +
		"an app reads), extends it in place, replaces it before it is too old, notices when it dies, and revokes it when it stops. " +
		"It is configured by environment variables alone.")
	say(".SH COMMANDS")
	for _, c := range commands() {
		say(".TP\n.B %s", roff(strings.TrimSpace(c.name+" "+c.args)))
		text(sentence(c.does))
		if c.details != "" {
			text(c.details)
		}
		say(".br")
		text("Exit: " + c.exits + ".")
	}
	say(".SH EXIT STATUS")
	text("0 done; " + commonExits + ".")
	say(".SH ENVIRONMENT")
	text("An empty variable counts as unset. Durations are numbers with units: 90s, 15m, 1h30m, 7d. [_FILE] means: or NAME_FILE, the " +
		"path of a file that is watched. " + sentence(config.OtherNames))
	for _, g := range config.Groups() {
		say(".SS %s", roff(g.Title))
		for _, v := range g.Variables {
			say(".TP\n.B %s", roff(nameAndDefault(v)))
			text(sentence(v.Does))
			if v.Usual != "" {
				text("Default: " + v.Usual + ".")
			}
		}
	}
	say(".SH FILES")
	for _, f := range [][2]string{
		{"/secrets/balena-token", "What the app reads: the key's bytes, without a line break (INJECTOR_OUTPUT)."},
		{"/secrets/balena-token.json", "Its generation and expiry, never the key."},
		{"/secrets/.injector", "The state directory, with the journal (INJECTOR_STATE_DIR)."},
	} {
		say(".TP\n.I %s", roff(f[0]))
		text(f[1])
	}
	say(".SH EXAMPLES")
	text("With a tmpfs at /secrets:")
	say(".PP\n.nf\n%s\n.fi", roff("export BALENA_USERNAME=service-account BALENA_PASSWORD_FILE=/run/secrets/balena-password\n"+
		"injector check\ninjector run &\n\ninjector exec -- my-app"))
	say(".SH SEE ALSO")
	text("https://github.com/balena-injector/injector")
	return out.String()
}
