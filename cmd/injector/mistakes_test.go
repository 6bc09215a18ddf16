package main

import (
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/tally"
)

func itoa(n int) string { return strconv.Itoa(n) }

// TestMistakes makes each mistake that a user can make, and looks at what init and check say.
func TestMistakes(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>hello")) }))
	t.Cleanup(page.Close)
	moved := httptest.NewServer(http.RedirectHandler("https://example.org/", http.StatusMovedPermanently))
	t.Cleanup(moved.Close)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(refusing.Close)
	rude := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(rude.Close)
	encrypted, otherName, authority := encryptedPage(t)
	for _, c := range []struct {
		name string
		code exitCode
		set  []string // an empty value removes the variable
		says []string
	}{
		{
			name: "too short",
			code: exitConfig,
			set:  []string{"INJECTOR_TTL", "5s"},
			says: []string{"INJECTOR_TTL", "10s"},
		},
		{
			name: "unknown variable",
			code: exitConfig,
			set:  []string{"INJECTOR_TTTL", "1h"},
			says: []string{"INJECTOR_TTTL", "did you mean INJECTOR_TTL?"},
		},
		{
			name: "no password",
			code: exitConfig,
			set:  []string{"BALENA_PASSWORD", ""},
			says: []string{"BALENA_PASSWORD", "BALENA_PASSWORD_FILE"},
		},
		{
			name: "a password for a path",
			code: exitConfig,
			set:  []string{"BALENA_PASSWORD", "", "BALENA_PASSWORD_FILE", "hunter2"},
			says: []string{"1 configuration problem", "BALENA_PASSWORD_FILE", "is not the absolute path of a file"},
		},
		{
			name: "wrong password",
			code: exitRefused,
			set:  []string{"BALENA_PASSWORD", "hunter2"},
			says: []string{"of 5 tries of this hour are left", "locks an account out after ten refusals"},
		},
		{
			name: "stale session",
			code: exitRefused,
			set:  []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_SESSION_TOKEN", "<STALE>"},
			says: []string{"20 minutes", "BALENA_USERNAME", "BALENA_PASSWORD_FILE"},
		},
		{
			name: "another server's session",
			code: exitRefused,
			set:  []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_SESSION_TOKEN", "<FOREIGN>"},
			says: []string{"does not accept", "BALENA_SESSION_TOKEN"},
		},
		{
			name: "a certificate of nobody known",
			code: exitFailed,
			set:  []string{"BALENA_API_URL", encrypted.URL},
			says: []string{"unknown authority", "INJECTOR_CA_FILE"},
		},
		{
			name: "a certificate for another name",
			code: exitFailed,
			set:  []string{"BALENA_API_URL", otherName, "INJECTOR_CA_FILE", authority},
			says: []string{"localhost", "host name that the certificate is for"},
		},
		{
			name: "https to an http port",
			code: exitFailed,
			set:  []string{"BALENA_API_URL", "https" + strings.TrimPrefix(page.URL, "http")},
			says: []string{"plain http is spoken there", "scheme and the port of BALENA_API_URL"},
		},
		{
			name: "http to an https port",
			code: exitFailed,
			set:  []string{"BALENA_API_URL", "http" + strings.TrimPrefix(encrypted.URL, "https")},
			says: []string{"https is spoken there", "scheme and the port of BALENA_API_URL"},
		},
		{
			name: "a dead proxy",
			code: exitFailed,
			set:  []string{"BALENA_API_URL", "https://api.example.org", "HTTPS_PROXY", "http://user:S3cret@127.0.0.1:1"},
			says: []string{"the proxy cannot be reached", "127.0.0.1:1", "check the proxy in HTTPS_PROXY"},
		},
		{
			name: "a proxy that hangs up",
			code: exitFailed,
			set:  []string{"BALENA_API_URL", "https://api.example.org", "HTTPS_PROXY", rude.URL},
			says: []string{"through the proxy 127.0.0.1:", "check the proxy in HTTPS_PROXY"},
		},
		{
			name: "the other proxy",
			code: exitFailed,
			set: []string{"BALENA_API_URL", "http://api.example.org", "INJECTOR_ALLOW_HTTP", "true",
				"HTTP_PROXY", "http://127.0.0.1:1", "HTTPS_PROXY", "http://127.0.0.1:2"},
			says: []string{"127.0.0.1:1", "check the proxy in HTTP_PROXY"},
		},
		{
			name: "a proxy that refuses",
			code: exitFailed,
			set:  []string{"BALENA_API_URL", "https://api.example.org", "https_proxy", refusing.URL},
			says: []string{"the proxy 127.0.0.1:", "answers 403 Forbidden", "check the proxy in https_proxy"},
		},
		{
			name: "a state directory below a file",
			code: exitFailed,
			set:  []string{"INJECTOR_STATE_DIR", "/etc/hostname/state"},
			says: []string{"/etc/hostname/state", "not a directory", "correct INJECTOR_STATE_DIR"},
		},
		{
			name: "an output below a file",
			code: exitFailed,
			set:  []string{"INJECTOR_OUTPUT", "/etc/hostname/token"},
			says: []string{"/etc/hostname", "not a directory", "correct INJECTOR_OUTPUT or INJECTOR_TEMPLATES"},
		},
		{
			name: "nobody there",
			code: exitFailed,
			set:  []string{"BALENA_API_URL", "http://127.0.0.1:1"},
			says: []string{"connection refused", "log in", "host and port in BALENA_API_URL"},
		},
		{
			name: "unknown host",
			code: exitFailed,
			set:  []string{"BALENA_API_URL", "https://no-such-host.invalid"},
			says: []string{"no-such-host.invalid", "host name in BALENA_API_URL"},
		},
		{
			name: "a web page",
			code: exitFailed,
			set:  []string{"BALENA_API_URL", page.URL},
			says: []string{"log in", "what answers there is not a balena API"},
		},
		{
			name: "a redirect",
			code: exitFailed,
			set:  []string{"BALENA_API_URL", moved.URL},
			says: []string{"redirect"},
		},
		{
			name: "no such fleet",
			code: exitFailed,
			set:  []string{"INJECTOR_KIND", "fleet", "INJECTOR_TARGET", "acme/none"},
			says: []string{"acme/none", "INJECTOR_TARGET"},
		},
		{
			name: "no directory",
			code: exitFailed,
			set:  []string{"INJECTOR_OUTPUT", "<DIR>/none/token"},
			says: []string{"<DIR>/none", "tmpfs"},
		},
		{
			name: "on disk",
			code: exitFailed,
			set:  []string{"INJECTOR_OUTPUT", "<DISK>/token"},
			says: []string{"<DISK>", "not in memory", "INJECTOR_REQUIRE_TMPFS=false"},
		},
		{
			name: "a directory in the way",
			code: exitConfig,
			set:  []string{"INJECTOR_OUTPUT", "<DIR>/taken"},
			says: []string{"<DIR>/taken", "is a directory", "balena-token"},
		},
		{
			name: "an open state directory",
			code: exitFailed,
			set:  []string{"INJECTOR_STATE_DIR", "<DIR>/open"},
			says: []string{"<DIR>/open", "chmod 0700"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, balenatest.Options{})
			u := s.server.DefaultUser()
			foreign := balenatest.New(balenatest.Options{})
			foreign.ChangePassword(foreign.DefaultUser(), "x")
			fill := strings.NewReplacer("<DIR>", s.dir, "<DISK>", t.TempDir(), "<SESSION>", s.server.Session(u, 0), "<STALE>",
				s.server.Session(u, 21*time.Minute), "<FOREIGN>", foreign.Session(foreign.DefaultUser(), 0), "<CUT>",
				strings.TrimRight(s.server.Session(u, 0)[:len(s.server.Session(u, 0))-4], ".")).Replace
			for i := 0; i < len(c.set); i += 2 {
				s.set(c.set[i], fill(c.set[i+1]))
			}
			s.set("INJECTOR_INIT_TIMEOUT", tally.Slow(2*time.Second).String())
			for name, text := range map[string]string{"lines": "one\ntwo\n", "utf16": "\xff\xfe{\x00{\x00",
				"latin1": "gr\xfc\xdfe {{.Token}}", "zeros": "{\x00{\x00.\x00T\x00o\x00k\x00e\x00n\x00}\x00}\x00"} {
				writeText(t, filepath.Join(s.dir, name), text)
			}
			for _, dir := range []string{"taken", "open"} {
				if err := os.MkdirAll(filepath.Join(s.dir, dir, "full"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, command := range []string{"check", "init"} {
				began := time.Now()
				out := s.want(int(c.code), command)
				if took := time.Since(began); took > tally.Slow(10*time.Second) {
					t.Errorf("%s took %v", command, took)
				}
				for _, say := range c.says {
					contains(t, out, fill(say))
				}
				if strings.Contains(out, "S3cret") {
					t.Errorf("it shows a secret: %s", out)
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

// encryptedPage is a server with a certificate that nobody has signed, its URL by a name that is not the certificate's,
// and the file that makes it trusted.
func encryptedPage(t *testing.T) (srv *httptest.Server, otherName, authority string) {
	t.Helper()
	srv = httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	authority = filepath.Join(t.TempDir(), "ca.pem")
	writeText(t, authority, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	return srv, "https://localhost:" + port, authority
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
	for _, v := range config.Variables() {
		contains(t, help, v.Name)
	}
	for line := range strings.Lines(help) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, c := range commands() {
		for line := range strings.Lines(s.want(0, "help", c.name)) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("%d columns: %s", n, line)
			}
		}
	}
	contains(t, s.want(0, "help", "INJECTOR_TTL"), "Default: 1h", "INJECTOR_DEPLOY_TTL", "See also: INJECTOR_MAX_TTL")
	contains(t, s.want(0, "help", "injector_password_file"), "BALENA_PASSWORD_FILE is its path", "Also called: INJECTOR_PASSWORD,")
	contains(t, s.want(int(exitConfig), "help", "INJECTOR_TLL"), `no variable "INJECTOR_TLL" (did you mean INJECTOR_TTL?)`)
	contains(t, s.want(int(exitConfig), "help", "rnu"), `no command "rnu" (did you mean run?)`)
	for _, c := range commands() {
		contains(t, help, "\n  "+c.name)
	}
	if n := s.server.Count(""); n != 0 {
		t.Errorf("%d requests", n)
	}
}
