package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// TestTheTriesAreCounted has a new user who types the password wrong, again and again.
func TestTheTriesAreCounted(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	right := s.env["BALENA_PASSWORD"]
	s.set("BALENA_PASSWORD", "wrong")
	contains(t, s.want(3, "init"), "is not accepted", "another one is tried at once, this one at ", " UTC; 4 of 5",
		"4 of 5 tries of this hour are left")
	out := s.want(3, "init")
	contains(t, out, "balena was not asked", "it refused this password once", "this one at ", "injector check --now")
	if strings.Contains(out, "check BALENA_USERNAME") {
		t.Errorf("advice about a password that nobody has tried:\n%s", out)
	}
	for _, typo := range []string{"wrong2", "wrong3", "wrong4", "wrong5"} { // each is another one, and tried at once
		s.set("BALENA_PASSWORD", typo)
		contains(t, s.want(3, "init"), "is not accepted")
	}
	s.set("BALENA_PASSWORD", right)
	contains(t, s.want(3, "init"), "balena was not asked", "other passwords", "no try of this hour is left", "injector check --now")
	if n := s.server.Count("login"); n != 5 {
		t.Errorf("%d logins", n)
	}
	p := s.start("run")
	s.eventually("the reason", func() bool { return strings.Contains(p.stderr.String(), "balena was not asked") })
	contains(t, s.want(0, "check", "--now"), "accepts the credential", "the injector that runs here")
	s.ready() // it went on at once
	p.stop()
}

// TestAPersonCannotLockTheAccountOut asks for more tries than there are.
func TestAPersonCannotLockTheAccountOut(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.set("BALENA_PASSWORD", "wrong")
	for range 12 {
		s.want(3, "check", "--now")
	}
	if n := s.server.Count("login"); n != 8 {
		t.Errorf("%d logins, and ten lock the account out", n)
	}
	out := s.want(3, "check", "--now")
	contains(t, out, "balena was not asked", "8 logins", "wait")
	if strings.Contains(out, "check --now` asks") {
		t.Errorf("advice to do what was just done:\n%s", out)
	}
	s.wantLive(0)
}

// TestAChangedPasswordIsTriedAtOnce changes the password's file of a healthy injector to a wrong one: that is found out
// now, and not at the next login a day later. The app notices nothing.
func TestAChangedPasswordIsTriedAtOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	right, file := s.env["BALENA_PASSWORD"], filepath.Join(s.dir, "password")
	writeFile(t, file, right)
	delete(s.env, "BALENA_PASSWORD")
	s.set("BALENA_PASSWORD_FILE", file)
	p := s.start("run")
	s.ready()
	writeFile(t, file, "wrong")
	s.eventually("a try", func() bool { return strings.Contains(p.stderr.String(), "the changed credential is refused") })
	contains(t, s.want(0, "status"), "the next login will fail", "is not accepted", "4 of 5 tries")
	contains(t, s.want(0, "status", "--json"), `"credential": {`)
	s.want(0, "healthcheck")
	time.Sleep(500 * time.Millisecond) // no further try comes
	if n := s.server.Count("login"); n != 2 {
		t.Errorf("%d logins", n)
	}
	writeFile(t, file, right)
	s.eventually("another try", func() bool { return strings.Contains(p.stderr.String(), "the changed credential works") })
	if out := s.want(0, "status"); strings.Contains(out, "is not accepted") {
		t.Errorf("%s", out)
	}
	if n := s.server.Count("mint"); n != 1 || s.server.Count("login") != 3 {
		t.Errorf("%d mints, %d logins", n, s.server.Count("login"))
	}
	p.stop()
}

// TestASessionFileIsCorrected begins with a token that an editor has put line breaks behind, then has one that is no
// token, and then a login whose session ends sooner than the one that is used.
func TestASessionFileIsCorrected(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	u, file := s.server.DefaultUser(), filepath.Join(s.dir, "session")
	for _, name := range []string{"BALENA_USERNAME", "BALENA_PASSWORD"} {
		delete(s.env, name)
	}
	s.set("BALENA_SESSION_TOKEN_FILE", file)
	first := s.server.Session(u, time.Minute)
	writeFile(t, file, first+"\n\n")
	p := s.start("run")
	s.ready()
	writeFile(t, file, first[:len(first)/2]+"\n"+first[len(first)/2:])
	s.eventually("the trouble", func() bool { return strings.Contains(s.want(0, "status"), "more than one line") })
	s.want(0, "healthcheck")
	fresh := s.server.Session(u, 0)
	writeFile(t, file, fresh)
	s.eventually("the use of the fresh one", func() bool {
		return slices.Contains(s.server.Bearers(), fresh)
	})
	s.eventually("no trouble", func() bool { return !strings.Contains(s.want(0, "status"), "more than one line") })
	if n := s.server.Count("mint"); n != 1 {
		t.Errorf("%d mints", n)
	}
	p.signal(syscall.SIGTERM)
	p.wait(8 * time.Second)
	s.wantLive(0)
}

// TestAPasswordFileThatComesBack is away for a while, and then the same again: what was said of it is taken back.
func TestAPasswordFileThatComesBack(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	file := s.usePasswordFile(t)
	p := s.startReady()
	away := filepath.Join(s.dir, "away")
	if err := os.Rename(file, away); err != nil {
		t.Fatal(err)
	}
	s.eventually("the trouble", func() bool { return strings.Contains(s.want(0, "status"), "the next login will fail") })
	contains(t, s.want(0, "healthcheck"), "ready, but the next login will fail", file)
	if err := os.Rename(away, file); err != nil {
		t.Fatal(err)
	}
	s.eventually("no trouble", func() bool { return !strings.Contains(s.want(0, "status"), "the next login will fail") })
	if n := s.server.Count("login"); n != 1 {
		t.Errorf("%d logins", n)
	}
	p.stop()
}
