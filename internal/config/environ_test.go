package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/balena-injector/injector/balena/balenatest"
)

// TestTheFirstEntryOfANameCounts as it does for os.Getenv.
func TestTheFirstEntryOfANameCounts(t *testing.T) {
	e := NewEnviron([]string{"A=1", "B=", "A=2", "C=x=y", "D", "B=3"})
	for name, want := range map[string]string{"A": "1", "B": "", "C": "x=y", "D": ""} {
		if value, set := e.Lookup(name); value != want || !set || e.Get(name) != want {
			t.Errorf("%s is %q, set: %v; not %q", name, value, set, want)
		}
	}
	for _, e := range []Environ{e, {}, NewEnviron(nil)} {
		if value, set := e.Lookup("a"); value != "" || set || e.Get("a") != "" {
			t.Errorf("what is not set is %q, set: %v", value, set)
		}
	}
}

// TestAnEnvironNeverChanges whatever becomes of the list that it was made of, and of those that it gives away.
func TestAnEnvironNeverChanges(t *testing.T) {
	list := []string{"A=1", "B=2"}
	e := NewEnviron(list)
	list[0] = "A=another"
	given := e.ForChild()
	given[1] = "B=another"
	_ = append(given[:0], "C=3")
	if e.Get("A") != "1" || e.Get("B") != "2" || !slices.Equal(e.ForChild(), []string{"A=1", "B=2"}) {
		t.Errorf("it has changed: %q", e.ForChild())
	}
}

// TestAChildInheritsAllButTheInjectorsOwn variables: its settings and its credentials. The API's URL and what balena sets
// on its devices are for apps, too.
func TestAChildInheritsAllButTheInjectorsOwn(t *testing.T) {
	apps := []string{
		"PATH=/bin",
		"BALENA_API_URL=https://api.example.org",
		"BALENA_API_KEY=of-the-device",
		"BALENA_TOKEN=x",
		"BALENA_PASSWORDS=x",
		"MY_INJECTOR_TTL=x",
		"PATH=/again",
		"WITHOUT_VALUE",
	}
	own := []string{
		"INJECTOR_TTL=1h",
		"INJECTOR_NO_SUCH_SETTING=x",
		"INJECTOR_DEPLOY_PASSWORD=x",
		"INJECTOR_PASSWORD=x",
		"BALENA_USERNAME=x",
		"BALENA_PASSWORD=x",
		"BALENA_PASSWORD_FILE=x",
		"BALENA_TOTP_SECRET=x",
		"BALENA_TOTP_SECRET_FILE=x",
		"BALENA_SESSION_TOKEN=x",
		"BALENA_SESSION_TOKEN_FILE=x",
		"BALENA_API_KEY_FILE=x",
	}
	var mixed []string
	for i := range max(len(apps), len(own)) {
		if i < len(own) {
			mixed = append(mixed, own[i])
		}
		if i < len(apps) {
			mixed = append(mixed, apps[i])
		}
	}
	if got := NewEnviron(mixed).ForChild(); !slices.Equal(got, apps) {
		t.Errorf("a child inherits %q, not %q", got, apps)
	}
	if got := (Environ{}).ForChild(); len(got) != 0 {
		t.Errorf("of nothing a child inherits %q", got)
	}
}

// secretive is an environment with credentials of every kind, and all that nobody may see of it.
func secretive(t *testing.T) (env Environ, secrets []string) {
	t.Helper()
	server := balenatest.New(balenatest.Options{}) // which nobody starts: it only signs sessions
	session := server.Session(server.DefaultUser(), 0)
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("S3cret of a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	env = NewEnviron([]string{
		"INJECTOR_KEYS=one,two,three",
		"BALENA_USERNAME=somebody",
		"BALENA_PASSWORD=S3cret of all",
		"BALENA_TOTP_SECRET=JBSWY3DPEHPK3PXP",
		"BALENA_API_KEY=S3cretOfTheDevice",
		"INJECTOR_ONE_SESSION_TOKEN=" + session,
		"INJECTOR_TWO_USERNAME=another",
		"INJECTOR_TWO_PASSWORD_FILE=" + file,
	})
	return env, []string{"S3cret", "JBSWY3DPEHPK3PXP", session}
}

// TestNothingPrintsACredential whatever is printed of an environment or a configuration, as a value, in JSON or in a log.
func TestNothingPrintsACredential(t *testing.T) {
	env, secrets := secretive(t)
	s, err := Read(env, Options{})
	if err != nil || len(s.Accounts) != 3 {
		t.Fatalf("%d accounts: %v", len(s.Accounts), err)
	}
	things := []any{env, &env, s, &s, s.Keys, s.Accounts, *s.Accounts[0], s.Accounts[0].Credentials, Options{}}
	for _, k := range s.Keys {
		things = append(things, k, &k)
	}
	var log bytes.Buffer
	text, asJSON := slog.New(slog.NewTextHandler(&log, nil)), slog.New(slog.NewJSONHandler(&log, nil))
	for _, thing := range things {
		shown := fmt.Sprintf("%v %+v %#v %x", thing, thing, thing, thing)
		raw, _ := json.Marshal(thing)
		log.Reset()
		text.Info("it", "thing", thing)
		asJSON.Info("it", "thing", thing)
		for _, secret := range secrets {
			for _, form := range []string{secret, fmt.Sprintf("%x", secret)} {
				if strings.Contains(shown+string(raw)+log.String(), form) {
					t.Errorf("%T shows %.4s…", thing, secret)
				}
			}
		}
	}
	if got := s.Accounts[0]; got.Login != "" { // it has a session only
		t.Errorf("a session has the login %q", got.Login)
	}
}

// TestSecretsAreTheVariablesThatHoldThem for these keys: not their files' paths, nor what balena's platform sets.
func TestSecretsAreTheVariablesThatHoldThem(t *testing.T) {
	for _, c := range []struct {
		s    Settings
		want []string
	}{
		{
			s: Settings{Keys: []Key{{}}},
			want: []string{
				"BALENA_PASSWORD",
				"BALENA_SESSION_TOKEN",
				"BALENA_TOTP_SECRET",
				"INJECTOR_PASSWORD",
				"INJECTOR_SESSION_TOKEN",
				"INJECTOR_TOTP_SECRET",
			},
		},
		{
			s: Settings{Keys: []Key{{Name: "deploy"}, {Name: "x"}}},
			want: []string{
				"BALENA_PASSWORD",
				"BALENA_SESSION_TOKEN",
				"BALENA_TOTP_SECRET",
				"INJECTOR_DEPLOY_PASSWORD",
				"INJECTOR_DEPLOY_SESSION_TOKEN",
				"INJECTOR_DEPLOY_TOTP_SECRET",
				"INJECTOR_PASSWORD",
				"INJECTOR_SESSION_TOKEN",
				"INJECTOR_TOTP_SECRET",
				"INJECTOR_X_PASSWORD",
				"INJECTOR_X_SESSION_TOKEN",
				"INJECTOR_X_TOTP_SECRET",
			},
		},
	} {
		if got := c.s.Secrets(); !slices.Equal(got, c.want) {
			t.Errorf("secrets are in %q, not %q", got, c.want)
		}
	}
}

// TestNamesOfAKeysOwnVariables and of those that are set, which people are told about.
func TestNamesOfAKeysOwnVariables(t *testing.T) {
	e := NewEnviron([]string{
		"INJECTOR_DEPLOY_TTL=1h",
		"INJECTOR_TTL=2h",
		"INJECTOR_PASSWORD_FILE=/x",
		"INJECTOR_DEPLOY_NAME=",
		"INJECTOR_API_URL=x",
	})
	for _, c := range []struct{ key, variable, own, set string }{
		{"", "INJECTOR_TTL", "INJECTOR_TTL", "INJECTOR_TTL"},
		{"deploy", "INJECTOR_TTL", "INJECTOR_DEPLOY_TTL", "INJECTOR_DEPLOY_TTL"},
		{"fleet", "INJECTOR_TTL", "INJECTOR_FLEET_TTL", "INJECTOR_TTL"},
		{"deploy", "INJECTOR_NAME", "INJECTOR_DEPLOY_NAME", "INJECTOR_NAME"}, // empty: not set
		{"", "BALENA_PASSWORD", "BALENA_PASSWORD", "BALENA_PASSWORD"},
		{"", "BALENA_PASSWORD_FILE", "INJECTOR_PASSWORD_FILE", "INJECTOR_PASSWORD_FILE"}, // by its other name
		{"", "BALENA_API_URL", "BALENA_API_URL", "BALENA_API_URL"},                       // it has no other name
		{"deploy", "BALENA_PASSWORD_FILE", "INJECTOR_DEPLOY_PASSWORD_FILE", "BALENA_PASSWORD_FILE"},
	} {
		if own, set := e.OwnName(c.key, c.variable), e.SetName(c.key, c.variable); own != c.own || set != c.set {
			t.Errorf("%s of %q is %s, and set by %s; not %s and %s", c.variable, c.key, own, set, c.own, c.set)
		}
	}
}

// TestTheEnvironmentOfThisProcessDoesNotMatter as a configuration is what it was given: neither what is missing there nor what
// is wrong comes from this process.
func TestTheEnvironmentOfThisProcessDoesNotMatter(t *testing.T) {
	dir := t.TempDir()
	good := with("INJECTOR_OUTPUT=" + filepath.Join(dir, "token"))
	read := func() []any {
		s, err := Read(good, Options{})
		_, none := Read(NewEnviron(nil), Options{})
		exec, noExec := Read(NewEnviron(nil), Options{Supervising: true})
		place, nowhere := Locate(NewEnviron(nil), false)
		outputs, limit, never := Awaited(NewEnviron(nil))
		return []any{plain(s), err, none, plain(exec), noExec, place, nowhere, outputs, limit, never}
	}
	before := read()
	others := []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "BALENA_TOKEN", "BALENA_USER", "balena_password", "HOME"}
	for _, name := range append(others, names(nil)...) {
		t.Setenv(name, `"S3cret`)
	}
	t.Setenv("INJECTOR_NO_SUCH_SETTING", "x")
	t.Setenv("BALENA_USERNAME", "somebody")
	t.Setenv("BALENA_PASSWORD", "a password")
	t.Setenv("INJECTOR_OUTPUT", "/elsewhere/token")
	for i, after := range read() {
		if !reflect.DeepEqual(after, before[i]) {
			t.Errorf("it was\n%v, and is\n%v", before[i], after)
		}
	}
}

// TestAProgramIsLookedForInTheEnvironmentsPath and not in this process's.
func TestAProgramIsLookedForInTheEnvironmentsPath(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "my-hook"), []byte("#!/bin/sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	wantRefused(t, with("PATH=/no/such/directory", "INJECTOR_NOTIFY_COMMAND=my-hook"), Options{}, "executable file not found")
	t.Setenv("PATH", "/no/such/directory")
	accepted(t, with("PATH=/bin:"+dir, "INJECTOR_NOTIFY_COMMAND=my-hook"), Options{})
	wantRefused(t, with("PATH=.", "INJECTOR_NOTIFY_COMMAND=my-hook"), Options{}, "executable file not found")
}

// TestNoVerbPrintsAnEnvironment tries those that do not fit as well.
func TestNoVerbPrintsAnEnvironment(t *testing.T) {
	env, secrets := secretive(t)
	s, err := Read(env, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%t"} {
		text := fmt.Sprintf(verb+verb+verb, env, &env, s)
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s prints a credential", verb)
			}
		}
	}
}
