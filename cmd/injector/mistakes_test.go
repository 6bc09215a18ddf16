package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

func itoa(n int) string { return strconv.Itoa(n) }

// TestMistakes makes each mistake that a user can make, and looks at what init and check say.
func TestMistakes(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>hello")) }))
	t.Cleanup(page.Close)
	moved := httptest.NewServer(http.RedirectHandler("https://example.org/", http.StatusMovedPermanently))
	t.Cleanup(moved.Close)
	for _, c := range []struct {
		name string
		code exitCode
		set  []string // an empty value removes the variable
		says []string
	}{
		{name: "no unit", code: exitConfig, set: []string{"INJECTOR_TTL", "5"}, says: []string{"INJECTOR_TTL", "unit"}},
		{name: "too short", code: exitConfig, set: []string{"INJECTOR_TTL", "5s"}, says: []string{"INJECTOR_TTL", "10s"}},
		{name: "unknown variable", code: exitConfig, set: []string{"INJECTOR_TTTL", "1h"}, says: []string{"INJECTOR_TTTL", "did you mean INJECTOR_TTL?"}},
		{name: "bad mode", code: exitConfig, set: []string{"INJECTOR_OUTPUT_MODE", "rw"}, says: []string{"INJECTOR_OUTPUT_MODE", "octal"}},
		{name: "bad owner", code: exitConfig, set: []string{"INJECTOR_OUTPUT_OWNER", "app"}, says: []string{"INJECTOR_OUTPUT_OWNER", "uid:gid"}},
		{name: "relative path", code: exitConfig, set: []string{"INJECTOR_OUTPUT", "token"}, says: []string{"INJECTOR_OUTPUT", "absolute"}},
		{name: "bad kind", code: exitConfig, set: []string{"INJECTOR_KIND", "group"}, says: []string{"INJECTOR_KIND", "user, fleet or device"}},
		{name: "no target", code: exitConfig, set: []string{"INJECTOR_KIND", "fleet"}, says: []string{"INJECTOR_TARGET", "slug"}},
		{name: "bad name", code: exitConfig, set: []string{"INJECTOR_NAME", "it's"}, says: []string{"INJECTOR_NAME"}},
		{name: "overlap", code: exitConfig, set: []string{"INJECTOR_OVERLAP", "9m"}, says: []string{"INJECTOR_OVERLAP", "quarter"}},
		{name: "max ttl", code: exitConfig, set: []string{"INJECTOR_MAX_TTL", "5m"}, says: []string{"INJECTOR_MAX_TTL", "shorter"}},
		{name: "bad boolean", code: exitConfig, set: []string{"INJECTOR_REQUIRE_TMPFS", "maybe"}, says: []string{"INJECTOR_REQUIRE_TMPFS", "true or false"}},
		{name: "bad level", code: exitConfig, set: []string{"INJECTOR_LOG_LEVEL", "loud"}, says: []string{"INJECTOR_LOG_LEVEL", "debug"}},
		{name: "bad format", code: exitConfig, set: []string{"INJECTOR_LOG_FORMAT", "xml"}, says: []string{"INJECTOR_LOG_FORMAT"}},
		{name: "bad address", code: exitConfig, set: []string{"INJECTOR_LISTEN", "9300"}, says: []string{"INJECTOR_LISTEN", ":9300"}},
		{name: "delay", code: exitConfig, set: []string{"INJECTOR_SHUTDOWN_DELAY", "10s"}, says: []string{"INJECTOR_SHUTDOWN_DELAY", "INJECTOR_SHUTDOWN_TIMEOUT"}},
		{name: "plain http", code: exitConfig, set: []string{"BALENA_API_URL", "http://api.example.org"}, says: []string{"BALENA_API_URL", "https", "INJECTOR_ALLOW_HTTP"}},
		{name: "no password", code: exitConfig, set: []string{"BALENA_PASSWORD", ""}, says: []string{"BALENA_PASSWORD", "BALENA_PASSWORD_FILE"}},
		{name: "no user name", code: exitConfig, set: []string{"BALENA_USERNAME", ""}, says: []string{"BALENA_USERNAME"}},
		{name: "nothing", code: exitConfig, set: []string{"BALENA_USERNAME", "", "BALENA_PASSWORD", ""}, says: []string{"BALENA_USERNAME", "BALENA_SESSION_TOKEN", "BALENA_API_KEY_FILE"}},
		{name: "both", code: exitConfig, set: []string{"BALENA_PASSWORD_FILE", "/etc/hostname"}, says: []string{"BALENA_PASSWORD", "keep one"}},
		{name: "no such file", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_PASSWORD_FILE", "/no/such/file"}, says: []string{"BALENA_PASSWORD_FILE", "/no/such/file", "no such file"}},
		{name: "a password for a path", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_PASSWORD_FILE", "hunter2"}, says: []string{"1 configuration problem", "BALENA_PASSWORD_FILE", "is not the absolute path of a file"}},
		{name: "a misspelt password", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_PASWORD_FILE", "/etc/hostname"}, says: []string{"did you mean BALENA_PASSWORD_FILE?"}},
		{name: "a misspelt user", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_USER", "x"}, says: []string{"did you mean BALENA_USERNAME?"}},
		{name: "both names", code: exitConfig, set: []string{"INJECTOR_PASSWORD", "x"}, says: []string{"BALENA_PASSWORD and INJECTOR_PASSWORD are both set"}},
		{name: "a wrong password by its other name", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "INJECTOR_PASSWORD_FILE", "/no/such/file"}, says: []string{"INJECTOR_PASSWORD_FILE", "/no/such/file"}},
		{name: "a key that is not named", code: exitConfig, set: []string{"INJECTOR_OUTPUT", "", "INJECTOR_KEYS", "a", "INJECTOR_C_OUTPUT", "/secrets/x"}, says: []string{"INJECTOR_C_OUTPUT", "does not name a key c"}},
		{name: "a hook that is not there", code: exitConfig, set: []string{"INJECTOR_NOTIFY_COMMAND", "no-such-program"}, says: []string{"INJECTOR_NOTIFY_COMMAND", "not found"}},
		{name: "not a session", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_SESSION_TOKEN", "s3cr3t-pasted"}, says: []string{"BALENA_SESSION_TOKEN", "eyJ"}},
		{name: "rotation without a password", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_SESSION_TOKEN", "<SESSION>", "INJECTOR_MAX_TTL", "24h"}, says: []string{"INJECTOR_MAX_TTL", "BALENA_PASSWORD"}},
		{name: "user key for user keys", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_API_KEY_FILE", "/etc/hostname"}, says: []string{"BALENA_API_KEY_FILE", "fleet and device"}},
		{name: "bad totp", code: exitConfig, set: []string{"BALENA_TOTP_SECRET", "0189"}, says: []string{"BALENA_TOTP_SECRET", "base32"}},
		{name: "cache beside the output", code: exitConfig, set: []string{"INJECTOR_SESSION_CACHE", "<DIR>/session"}, says: []string{"INJECTOR_SESSION_CACHE"}},
		{name: "no certificates", code: exitConfig, set: []string{"INJECTOR_CA_FILE", "/etc/hostname"}, says: []string{"INJECTOR_CA_FILE", "PEM"}},

		{name: "wrong password", code: exitRefused, set: []string{"BALENA_PASSWORD", "hunter2"}, says: []string{"of 5 tries of this hour are left", "locks an account out after ten refusals"}},
		{name: "stale session", code: exitRefused, set: []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_SESSION_TOKEN", "<STALE>"}, says: []string{"20 minutes", "BALENA_USERNAME", "BALENA_PASSWORD_FILE"}},
		{name: "another server's session", code: exitRefused, set: []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_SESSION_TOKEN", "<FOREIGN>"}, says: []string{"does not accept", "BALENA_SESSION_TOKEN"}},

		{name: "nobody there", code: exitFailed, set: []string{"BALENA_API_URL", "http://127.0.0.1:1"}, says: []string{"connection refused", "log in"}},
		{name: "unknown host", code: exitFailed, set: []string{"BALENA_API_URL", "https://no-such-host.invalid"}, says: []string{"no-such-host.invalid"}},
		{name: "a web page", code: exitFailed, set: []string{"BALENA_API_URL", page.URL}, says: []string{"log in"}},
		{name: "a redirect", code: exitFailed, set: []string{"BALENA_API_URL", moved.URL}, says: []string{"redirect"}},
		{name: "no such fleet", code: exitFailed, set: []string{"INJECTOR_KIND", "fleet", "INJECTOR_TARGET", "acme/none"}, says: []string{"acme/none", "INJECTOR_TARGET"}},
		{name: "no directory", code: exitFailed, set: []string{"INJECTOR_OUTPUT", "<DIR>/none/token"}, says: []string{"<DIR>/none", "tmpfs"}},
		{name: "on disk", code: exitFailed, set: []string{"INJECTOR_OUTPUT", "<DISK>/token"}, says: []string{"<DISK>", "not in memory", "INJECTOR_REQUIRE_TMPFS=false"}},
		{name: "a directory in the way", code: exitConfig, set: []string{"INJECTOR_OUTPUT", "<DIR>/taken"}, says: []string{"<DIR>/taken", "is a directory", "balena-token"}},
		{name: "an open state directory", code: exitFailed, set: []string{"INJECTOR_STATE_DIR", "<DIR>/open"}, says: []string{"<DIR>/open", "chmod 0700"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, balenatest.Options{})
			u := s.server.DefaultUser()
			foreign := balenatest.New(balenatest.Options{})
			foreign.ChangePassword(foreign.DefaultUser(), "x")
			fill := strings.NewReplacer("<DIR>", s.dir, "<DISK>", t.TempDir(), "<SESSION>", s.server.Session(u, 0), "<STALE>", s.server.Session(u, 21*time.Minute),
				"<FOREIGN>", foreign.Session(foreign.DefaultUser(), 0)).Replace
			for i := 0; i < len(c.set); i += 2 {
				s.set(c.set[i], fill(c.set[i+1]))
			}
			s.set("INJECTOR_INIT_TIMEOUT", "2s")
			for _, dir := range []string{"taken", "open"} {
				if err := os.MkdirAll(filepath.Join(s.dir, dir, "full"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, command := range []string{"check", "init"} {
				began := time.Now()
				out := s.want(int(c.code), command)
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("%s took %v", command, took)
				}
				for _, say := range c.says {
					contains(t, out, fill(say))
				}
			}
			if n := s.server.Count("mint"); n != 0 {
				t.Errorf("%d mints", n)
			}
			s.wantLive(0)
			s.wantNoFile()
		})
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	s := newStage(t, balenatest.Options{})
	s.set("INJECTOR_TTL", "x", "INJECTOR_OUTPUT_MODE", "x", "INJECTOR_KIND", "x", "INJECTOR_FOO", "x", "BALENA_API_URL", "x")
	out := s.want(int(exitConfig), "run")
	contains(t, out, "5 configuration problems", "INJECTOR_TTL", "INJECTOR_OUTPUT_MODE", "INJECTOR_KIND", "INJECTOR_FOO", "BALENA_API_URL")
}

func TestKubernetesServiceVariablesAreIgnored(t *testing.T) {
	s := newStage(t, balenatest.Options{})
	s.set("INJECTOR_SERVICE_HOST", "10.0.0.1", "INJECTOR_PORT", "tcp://10.0.0.1:80", "INJECTOR_METRICS_SERVICE_PORT_HTTP", "80",
		"INJECTOR_METRICS_PORT_80_TCP_ADDR", "10.0.0.1", "TTL", "nonsense", "OUTPUT", "nonsense")
	s.want(0, "check")
}

// TestNoValueIsShown pastes a secret into each variable in turn, in forms that make it wrong.
func TestNoValueIsShown(t *testing.T) {
	for _, pasted := range []string{"S3cret", "0123456789abcdef0123456789abcdef", "htps://u:S3cret@h/x", "S3cret http://h/", "http://u:S3cret@h:x/", "S3cret;S3cret",
		"S3cret:S3cret", "$S3cret", "1S3cret", "S3cret:80"} {
		for f := range allFields() {
			t.Run("", func(t *testing.T) {
				name := f.Tag.Get("envconfig")
				t.Setenv("BALENA_USERNAME", "injector")
				t.Setenv("BALENA_PASSWORD", "x")
				t.Setenv(name, pasted)
				s, err := parseSettings(os.Environ())
				text := fmt.Sprint(err, s.Warnings)
				if strings.Contains(text, "S3cret") || strings.Contains(text, pasted) {
					t.Errorf("%s=%s is shown: %s", name, pasted, text)
				}
			})
		}
	}
}

// TestAnAddressThatIsASecret has one that only turns out to be wrong when it is used.
func TestAnAddressThatIsASecret(t *testing.T) {
	s := newStage(t, balenatest.Options{})
	s.set("INJECTOR_LISTEN", "S3cret:80")
	if out := s.want(int(exitFailed), "run"); strings.Contains(out, "S3cret") || !strings.Contains(out, "INJECTOR_LISTEN") {
		t.Errorf("%s", out)
	}
	s.wantLive(0)
}

func TestCommandLine(t *testing.T) {
	s := newStage(t, balenatest.Options{})
	contains(t, s.want(int(exitConfig), "rnu"), "did you mean run?")
	contains(t, s.want(int(exitConfig), "run", "--ttl=1h"), "environment variables")
	contains(t, s.want(int(exitConfig), "run", "extra"), "extra")
	contains(t, s.want(int(exitConfig)), "Usage")
	contains(t, s.want(0, "--help"), "Usage", "INJECTOR_TTL")
	contains(t, s.want(0, "run", "--help"), "SIGQUIT")
	contains(t, s.want(0, "help", "revoke"), "--expired")
	contains(t, s.want(0, "version"), "injector ")
	help := s.want(0, "help")
	for f := range allFields() {
		contains(t, help, f.Tag.Get("envconfig"))
	}
	for _, secret := range secretVariables {
		contains(t, help, secret.name)
	}
	for _, c := range commands() {
		contains(t, help, "\n  "+c.name)
	}
	if n := s.server.Count(""); n != 0 {
		t.Errorf("%d requests", n)
	}
}
