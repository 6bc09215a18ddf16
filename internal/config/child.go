package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/balena-injector/injector/internal/words"
)

var variableForm = form(`^[A-Za-z_][A-Za-z0-9_]*$`)

// usualVariable is the one that exec puts the only key's token into.
const usualVariable = "BALENA_TOKEN"

// tokenVariables are the variables that exec puts a key's token into.
func (p *parser) tokenVariables(text string) []string {
	names := splitList(text)
	if text == "" {
		names = []string{usualVariable}
		if p.scope.key != "" {
			names = []string{"BALENA_TOKEN_" + strings.ToUpper(p.scope.key)}
		}
	}
	for i, name := range names {
		const fix = "give names of variables that the app alone reads, such as BALENA_TOKEN"
		switch {
		case name != usualVariable && !variableForm().MatchString(name):
			p.fail("INJECTOR_TOKEN_VARIABLES", fmt.Sprintf("has an entry %d that is not a variable's name", i+1), fix)
		case ours(name) || meansMore(name):
			p.fail("INJECTOR_TOKEN_VARIABLES", "names "+name+", which has a meaning of its own", fix)
		}
	}
	if len(names) == 0 {
		p.fail("INJECTOR_TOKEN_VARIABLES", "names none", "give names of variables that the app reads, such as BALENA_TOKEN")
	}
	return names
}

// meansMore reports whether a variable has a meaning for the system, a shell or a library, which would show the token
// in an error or come to grief with it.
func meansMore(name string) bool {
	upper := strings.ToUpper(name)
	return strings.HasPrefix(upper, "LD_") || strings.HasPrefix(upper, "PYTHON") || strings.HasPrefix(upper, "SSL_CERT_") ||
		strings.HasSuffix(upper, "_PROXY") ||
		slices.Contains([]string{"PATH", "HOME", "SHELL", "IFS", "ENV", "BASH_ENV", "PWD", "USER", "TMPDIR", "LANG", "TZ", "GODEBUG",
			"GOGC", "GOMEMLIMIT", "NODE_OPTIONS", "BALENA_API_URL"}, upper)
}

// child checks what exec needs beyond the rest.
func (p *parser) child(s *Settings) {
	var seen []string
	for _, k := range s.Keys {
		for _, name := range k.Variables {
			if slices.Contains(seen, name) {
				p.scope = p.of(k.Name)
				p.fail("INJECTOR_TOKEN_VARIABLES", "names "+name+" a second time", "name it once, and for one key")
			}
			seen = append(seen, name)
		}
	}
	p.scope = p.of("")
	if s.ShutdownDelay > 0 {
		s.ShutdownDelay = 0
		s.Warnings = append(s.Warnings, "INJECTOR_SHUTDOWN_DELAY is not used by exec: when the keys are revoked the command has ended")
	}
	if s.KillAfter >= s.ShutdownTimeout {
		p.fail("INJECTOR_KILL_AFTER", "leaves no time to revoke before INJECTOR_SHUTDOWN_TIMEOUT ("+words.Short(s.ShutdownTimeout)+")",
			"raise the timeout, and the platform's own grace period above that")
	}
}

// signals that a rotation or a notification may send, by name.
func (p *parser) rotation(s *Settings, text string) {
	switch text {
	case "restart":
		s.RestartChild = true
	case "none":
	default:
		sig, ok := signalNamed(text)
		if !ok {
			p.fail("INJECTOR_ON_ROTATION", "is neither restart nor none nor a signal", "give restart, none, or a signal such as HUP")
		}
		s.SignalChild = sig
	}
}
