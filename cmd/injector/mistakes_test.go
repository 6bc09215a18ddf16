package main

import (
	"encoding/pem"
	"fmt"
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

	"github.com/balena-injector/injector/balena/balenatest"
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
		{name: "bad address", code: exitConfig, set: []string{"INJECTOR_LISTEN", "9300"}, says: []string{"INJECTOR_LISTEN", ":22536"}},
		{name: "delay", code: exitConfig, set: []string{"INJECTOR_SHUTDOWN_DELAY", "10s"}, says: []string{"INJECTOR_SHUTDOWN_DELAY", "INJECTOR_SHUTDOWN_TIMEOUT"}},
		{name: "plain http", code: exitConfig, set: []string{"BALENA_API_URL", "http://api.example.org"}, says: []string{"BALENA_API_URL", "https", "INJECTOR_ALLOW_HTTP"}},
		{name: "no password", code: exitConfig, set: []string{"BALENA_PASSWORD", ""}, says: []string{"BALENA_PASSWORD", "BALENA_PASSWORD_FILE"}},
		{name: "no user name", code: exitConfig, set: []string{"BALENA_USERNAME", ""}, says: []string{"BALENA_USERNAME"}},
		{name: "nothing", code: exitConfig, set: []string{"BALENA_USERNAME", "", "BALENA_PASSWORD", ""}, says: []string{"BALENA_USERNAME", "BALENA_SESSION_TOKEN", "BALENA_API_KEY_FILE"}},
		{name: "both", code: exitConfig, set: []string{"BALENA_PASSWORD_FILE", "/etc/hostname"}, says: []string{"BALENA_PASSWORD", "keep one"}},
		{name: "no such file", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_PASSWORD_FILE", "/no/such/file"}, says: []string{"BALENA_PASSWORD_FILE", "/no/such/file", "no such file"}},
		{name: "a password for a path", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_PASSWORD_FILE", "hunter2"}, says: []string{"1 configuration problem", "BALENA_PASSWORD_FILE", "is not the absolute path of a file"}},
		{name: "a misspelt password", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_PASWORD_FILE", "/etc/hostname"}, says: []string{"did you mean BALENA_PASSWORD_FILE?"}},
		{name: "a misspelt user", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_USER", "x"}, says: []string{"BALENA_USER is not read", "is read from BALENA_USERNAME"}},
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

		{name: "quotes around a name", code: exitConfig, set: []string{"BALENA_USERNAME", `"injector"`}, says: []string{"BALENA_USERNAME is between quotes", "remove them"}},
		{name: "quotes around a URL", code: exitConfig, set: []string{"BALENA_API_URL", `"https://api.example.org"`}, says: []string{"BALENA_API_URL is between quotes", "remove them"}},
		{name: "a Latin-1 password", code: exitConfig, set: []string{"BALENA_PASSWORD", "gr\xfc\xdfe"}, says: []string{"BALENA_PASSWORD is not usable", "Latin-1", "save it as UTF-8"}},
		{name: "a password file of two lines", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_PASSWORD_FILE", "<DIR>/lines"}, says: []string{"BALENA_PASSWORD_FILE is not usable", "more than one line"}},
		{name: "a UTF-16 password file", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_PASSWORD_FILE", "<DIR>/utf16"}, says: []string{"BALENA_PASSWORD_FILE is not usable", "UTF-16"}},
		{name: "a header for a session", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_SESSION_TOKEN", "Bearer <SESSION>"}, says: []string{"BALENA_SESSION_TOKEN is not usable", "Bearer"}},
		{name: "a session cut short", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_SESSION_TOKEN", "<CUT>"}, says: []string{"BALENA_SESSION_TOKEN is not usable", "end is missing"}},
		{name: "a code for a TOTP secret", code: exitConfig, set: []string{"BALENA_TOTP_SECRET", "123456"}, says: []string{"BALENA_TOTP_SECRET is not usable", "QR code"}},
		{name: "another service's TOTP", code: exitConfig, set: []string{"BALENA_TOTP_SECRET", "otpauth://totp/x?secret=JBSWY3DPEHPK3PXP&digits=8"}, says: []string{"BALENA_TOTP_SECRET is not usable", "digits"}},
		{name: "an e-mail address", code: exitConfig, set: []string{"BALENA_USERNAME", "", "BALENA_EMAIL", "a@example.org"}, says: []string{"BALENA_EMAIL is not read", "BALENA_USERNAME"}},
		{name: "a file for the name", code: exitConfig, set: []string{"BALENA_USERNAME", "", "BALENA_USERNAME_FILE", "/etc/hostname"}, says: []string{"BALENA_USERNAME_FILE is not read", "BALENA_USERNAME only"}},
		{name: "a misspelt URL", code: exitConfig, set: []string{"BALENA_API_URL", "", "BALENA_API_ULR", "https://api.example.org"}, says: []string{"BALENA_API_ULR", "did you mean BALENA_API_URL?"}},
		{name: "another's name for the API", code: exitConfig, set: []string{"BALENA_API_URL", "", "BALENA_API_HOST", "api.example.org"}, says: []string{"BALENA_API_HOST is not read", "BALENA_API_URL"}},
		{name: "small letters", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "balena_password", "x"}, says: []string{"balena_password is not read", "capitals"}},
		{name: "a file for the name, by its other name", code: exitConfig, set: []string{"BALENA_USERNAME", "", "INJECTOR_USERNAME_FILE", "/etc/hostname"}, says: []string{"INJECTOR_USERNAME_FILE", "BALENA_USERNAME only"}},
		{name: "two names for the name", code: exitConfig, set: []string{"INJECTOR_USERNAME", "other"}, says: []string{"BALENA_USERNAME and INJECTOR_USERNAME are both set"}},
		{name: "an old token alone", code: exitConfig, set: []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_TOKEN", "0123456789abcdef0123456789abcdef"}, says: []string{"BALENA_TOKEN is set, and not used", "needs a login"}},
		{name: "one problem for a quoted value", code: exitConfig, set: []string{"INJECTOR_TTL", `"1h"`}, says: []string{"1 configuration problem:", "INJECTOR_TTL is between quotes"}},
		{name: "UTF-16 without a mark", code: exitConfig, set: []string{"INJECTOR_TEMPLATES", "<DIR>/zeros:<DIR>/app.conf"}, says: []string{"INJECTOR_TEMPLATES", "zero bytes"}},
		{name: "a home directory", code: exitConfig, set: []string{"INJECTOR_NOTIFY_COMMAND", "touch ~/x"}, says: []string{"INJECTOR_NOTIFY_COMMAND", "there is no shell"}},
		{name: "a shell's line", code: exitConfig, set: []string{"INJECTOR_NOTIFY_COMMAND", "nginx -s reload && echo ok"}, says: []string{"INJECTOR_NOTIFY_COMMAND", "there is no shell", `["sh","-c","…"]`}},
		{name: "quotes for a shell", code: exitConfig, set: []string{"INJECTOR_NOTIFY_COMMAND", `echo "two words"`}, says: []string{"INJECTOR_NOTIFY_COMMAND", "there is no shell"}},
		{name: "a URL with a question mark", code: exitConfig, set: []string{"BALENA_API_URL", "https://api.example.org?"}, says: []string{"BALENA_API_URL", "query"}},
		{name: "a UTF-16 template", code: exitConfig, set: []string{"INJECTOR_TEMPLATES", "<DIR>/utf16:<DIR>/app.conf"}, says: []string{"INJECTOR_TEMPLATES", "<DIR>/utf16", "UTF-16"}},
		{name: "a Latin-1 template", code: exitConfig, set: []string{"INJECTOR_TEMPLATES", "<DIR>/latin1:<DIR>/app.conf"}, says: []string{"INJECTOR_TEMPLATES", "<DIR>/latin1", "Latin-1"}},
		{name: "a line break in a setting", code: exitConfig, set: []string{"INJECTOR_DESCRIPTION", "one\rtwo"}, says: []string{"INJECTOR_DESCRIPTION", "line break"}},

		{name: "a certificate of nobody known", code: exitFailed, set: []string{"BALENA_API_URL", encrypted.URL}, says: []string{"unknown authority", "INJECTOR_CA_FILE"}},
		{name: "a certificate for another name", code: exitFailed, set: []string{"BALENA_API_URL", otherName, "INJECTOR_CA_FILE", authority}, says: []string{"localhost", "host name that the certificate is for"}},
		{name: "https to an http port", code: exitFailed, set: []string{"BALENA_API_URL", "https" + strings.TrimPrefix(page.URL, "http")}, says: []string{"plain http is spoken there", "scheme and the port of BALENA_API_URL"}},
		{name: "http to an https port", code: exitFailed, set: []string{"BALENA_API_URL", "http" + strings.TrimPrefix(encrypted.URL, "https")}, says: []string{"https is spoken there", "scheme and the port of BALENA_API_URL"}},
		{name: "a dead proxy", code: exitFailed, set: []string{"BALENA_API_URL", "https://api.example.org", "HTTPS_PROXY", "http://user:S3cret@127.0.0.1:1"}, says: []string{"the proxy cannot be reached", "127.0.0.1:1", "check the proxy in HTTPS_PROXY"}},
		{name: "a proxy that hangs up", code: exitFailed, set: []string{"BALENA_API_URL", "https://api.example.org", "HTTPS_PROXY", rude.URL}, says: []string{"through the proxy 127.0.0.1:", "check the proxy in HTTPS_PROXY"}},
		{name: "the other proxy", code: exitFailed, set: []string{"BALENA_API_URL", "http://api.example.org", "INJECTOR_ALLOW_HTTP", "true", "HTTP_PROXY", "http://127.0.0.1:1", "HTTPS_PROXY", "http://127.0.0.1:2"}, says: []string{"127.0.0.1:1", "check the proxy in HTTP_PROXY"}},
		{name: "a proxy that refuses", code: exitFailed, set: []string{"BALENA_API_URL", "https://api.example.org", "https_proxy", refusing.URL}, says: []string{"the proxy 127.0.0.1:", "answers 403 Forbidden", "check the proxy in https_proxy"}},
		{name: "a state directory below a file", code: exitFailed, set: []string{"INJECTOR_STATE_DIR", "/etc/hostname/state"}, says: []string{"/etc/hostname/state", "not a directory", "correct INJECTOR_STATE_DIR"}},
		{name: "an output below a file", code: exitFailed, set: []string{"INJECTOR_OUTPUT", "/etc/hostname/token"}, says: []string{"/etc/hostname", "not a directory", "correct INJECTOR_OUTPUT or INJECTOR_TEMPLATES"}},

		{name: "nobody there", code: exitFailed, set: []string{"BALENA_API_URL", "http://127.0.0.1:1"}, says: []string{"connection refused", "log in", "host and port in BALENA_API_URL"}},
		{name: "unknown host", code: exitFailed, set: []string{"BALENA_API_URL", "https://no-such-host.invalid"}, says: []string{"no-such-host.invalid", "host name in BALENA_API_URL"}},
		{name: "a web page", code: exitFailed, set: []string{"BALENA_API_URL", page.URL}, says: []string{"log in", "what answers there is not a balena API"}},
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
				"<FOREIGN>", foreign.Session(foreign.DefaultUser(), 0), "<CUT>", strings.TrimRight(s.server.Session(u, 0)[:len(s.server.Session(u, 0))-4], ".")).Replace
			for i := 0; i < len(c.set); i += 2 {
				s.set(c.set[i], fill(c.set[i+1]))
			}
			s.set("INJECTOR_INIT_TIMEOUT", tally.Slow(2*time.Second).String())
			for name, text := range map[string]string{"lines": "one\ntwo\n", "utf16": "\xff\xfe{\x00{\x00", "latin1": "gr\xfc\xdfe {{.Token}}", "zeros": "{\x00{\x00.\x00T\x00o\x00k\x00e\x00n\x00}\x00}\x00"} {
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
