package main

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/tally"
)

// marked is a stage whose credentials can be told from any other text.
func marked(t *testing.T) *stage {
	s := newStage(t, balenatest.Options{})
	u := s.server.AddUser("careful", "marked/pass word+1", "JBSWY3DPEHPK3PXP")
	s.set("BALENA_USERNAME", u.Name, "BALENA_PASSWORD", u.Password, "BALENA_TOTP_SECRET", u.TOTPSecret)
	return s
}

// secrets are all that must not be seen: what it was given, what it was sent and what it made.
func (s *stage) secrets() []string {
	list := []string{s.env["BALENA_PASSWORD"]}
	if totp := s.env["BALENA_TOTP_SECRET"]; totp != "" {
		list = append(list, totp)
	}
	for _, k := range s.server.All() {
		list = append(list, k.Secret)
	}
	return append(list, s.server.Bearers()...)
}

// wantNoSecret looks for every secret in every form.
func (s *stage) wantNoSecret(where, text string) {
	s.t.Helper()
	tally.Add("secrets seen", 0)
	for _, secret := range s.secrets() {
		tally.Add("secrets looked for", 1)
		raw := []byte(secret)
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), hex.EncodeToString(raw),
			base64.RawStdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw)} {
			if strings.Contains(text, form) {
				tally.Add("secrets seen", 1)
				s.t.Errorf("%s shows %.4s…", where, form)
			}
		}
	}
}

// TestNothingShowsASecret lives a life at debug level, asks it everything that can be asked, and
// searches the answers, its arguments and its output.
func TestNothingShowsASecret(t *testing.T) {
	s := marked(t)
	listen := freeAddress(t)
	s.set("INJECTOR_LISTEN", listen, "INJECTOR_CHECK_INTERVAL", "1s")
	p := s.start("run")
	s.ready()
	s.server.DeleteKey(s.server.Live()[0].ID) // a death and a birth
	s.eventually("another key", func() bool { return s.server.Count("mint") == 2 })
	s.ready()
	s.server.Fail(balenatest.Fault{Status: 500, Body: "no: ", Echo: true})
	s.eventually("a failure", func() bool { return strings.Contains(p.stderr.String(), "could not check") })
	for _, args := range [][]string{{"status"}, {"status", "--json"}, {"explain"}, {"healthcheck"}, {"healthcheck", "--live"}, {"help"},
		{"version"}, {"init", "--wrong"}} {
		_, out := s.do(args...)
		s.wantNoSecret(strings.Join(args, " "), out)
	}
	for _, path := range []string{"/metrics", "/readyz", "/livez", "/"} {
		_, body := get(t, "http://"+listen+path)
		s.wantNoSecret(path, body)
	}
	for _, path := range []string{"/status", "/readyz"} {
		_, body, err := probe.Ask(t.Context(), s.stateDir(), path, 0)
		if err != nil {
			t.Error(err)
		}
		s.wantNoSecret("the socket", string(body))
	}
	line, err := os.ReadFile("/proc/" + itoa(p.cmd.Process.Pid) + "/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	s.wantNoSecret("its command line", string(line))
	info, err := os.ReadFile(s.token() + ".json")
	if err != nil {
		t.Fatal(err)
	}
	s.wantNoSecret("the file beside the output", string(info))
	s.server.Heal()
	p.stop()
	if n := len(s.secrets()); n < 5 {
		t.Errorf("only %d secrets were looked for", n)
	}
	s.wantNoSecret("the log", s.log.String())
}

// TestAPanicShowsNoSecret panics at one point of file work in five, with all goroutines' stacks.
func TestAPanicShowsNoSecret(t *testing.T) {
	binary := buildToCrash(t)
	points, _ := countPoints(t, binary)
	for n := 3; n <= points; n += 5 {
		t.Run(itoa(n), func(t *testing.T) {
			t.Parallel()
			s := crashStage(t, binary)
			u := s.server.AddUser("careful", "marked/pass word+1", "")
			s.set("BALENA_USERNAME", u.Name, "BALENA_PASSWORD", u.Password, "INJECTOR_LOG_LEVEL", "debug")
			s.set("CRASH_AT", itoa(n), "CRASH_WITH", "panic", "GOTRACEBACK", "all")
			p := s.start("run")
			if code := p.wait(20 * time.Second); code != 2 {
				t.Errorf("exit %d", code)
			}
			tally.Add("panics", 1)
			contains(t, p.stderr.String(), "panic: crash point", "goroutine ")
			s.wantNoSecret("the panic", p.stderr.String())
			for _, name := range []string{"CRASH_AT", "CRASH_WITH"} {
				delete(s.env, name)
			}
			if exists(s.stateDir()) { // some points come before it
				s.want(0, "revoke")
			}
			s.wantLive(0)
		})
	}
}

// TestProcessKeepsItsSecretsToItself runs it as somebody: the kernel gives the memory and the
// environment of a process that must not be dumped to root.
func TestProcessKeepsItsSecretsToItself(t *testing.T) {
	s := marked(t)
	const somebody = 4321
	s.binary = filepath.Join(s.dir, "injector.test")
	copyFile(t, os.Args[0], s.binary)
	if err := errors.Join(os.Chmod(s.dir, 0o755), os.Chown(s.dir, somebody, somebody)); err != nil {
		t.Fatalf("changing users takes root: %v", err)
	}
	s.user = &syscall.Credential{Uid: somebody, Gid: somebody}
	p := s.start("run")
	s.eventually("a token", func() bool { _, err := os.Stat(s.token()); return err == nil })
	for _, name := range []string{"mem", "environ"} {
		info, err := os.Stat("/proc/" + itoa(p.cmd.Process.Pid) + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
			t.Errorf("user %d may read its %s", owner, name)
		}
	}
	p.stop()
}
