package main

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/balena-injector/injector/balena/balenatest"
)

// TestCheckSaysWhatRunWouldFindTaken has an address and a state directory that another process uses.
func TestCheckSaysWhatRunWouldFindTaken(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s.set("INJECTOR_LISTEN", l.Addr().String())
	for _, command := range []string{"check", "run"} {
		contains(t, s.want(int(exitFailed), command), "INJECTOR_LISTEN", "address already in use", "fix: another process listens there")
	}
	delete(s.env, "INJECTOR_LISTEN")
	address := freeAddress(t)
	s.set("INJECTOR_LISTEN", address)
	contains(t, s.want(0, "check"), "ok  address "+address+" for probes", "ok  state directory")

	p := s.start("run")
	s.ready()
	// Beside the injector of this very configuration: to try a password, for instance.
	contains(
		t,
		s.want(0, "check"),
		"in which `injector run` (pid "+itoa(p.cmd.Process.Pid)+") keeps these outputs",
		"note another injector is using this state directory",
	)

	mine := s.env["INJECTOR_OUTPUT"]
	s.set("INJECTOR_OUTPUT", filepath.Join(s.dir, "other-token"), "INJECTOR_INIT_TIMEOUT", "1s")
	for _, command := range []string{"check", "run"} {
		contains(t, s.want(int(exitFailed), command), "another injector is using this state directory", "fix: stop the other injector")
	}
	s.set("INJECTOR_OUTPUT", mine)
	p.freeze()
	contains(t, s.want(int(exitFailed), "check"), "another injector is using this state directory", "does not answer")
	p.signal(syscall.SIGCONT)
	p.stop()
}

// TestATemplateWithoutTheToken renders well, and is of no use to the app.
func TestATemplateWithoutTheToken(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	with, without := filepath.Join(s.dir, "with.tmpl"), filepath.Join(s.dir, "without.tmpl")
	writeText(t, with, `{{printf "user:%s" .Token | base64}}`)
	writeText(t, without, "token = {{.Name}}\n")
	s.set("INJECTOR_TEMPLATES", with+":"+filepath.Join(s.dir, "good")+","+without+":"+filepath.Join(s.dir, "bad"))
	out := s.want(0, "check")
	contains(t, out, "note the template of "+filepath.Join(s.dir, "bad")+" never uses the token")
	if strings.Count(out, "never uses the token") != 1 {
		t.Errorf("%s", out)
	}
	s.wantLive(0)
}

// TestAnOldTokenIsPointedOut finds a static token in the environment, and goes on.
func TestAnOldTokenIsPointedOut(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.set("BALENA_TOKEN", "0123456789abcdef0123456789abcdef")
	out := s.want(0, "check")
	contains(t, out, "BALENA_TOKEN is set where the injector runs, and is not used")
	if strings.Contains(out, s.env["BALENA_TOKEN"]) {
		t.Error("it is shown")
	}
}

// TestLineEndsAreNoPartOfACredential have come along from another system.
func TestLineEndsAreNoPartOfACredential(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	right := s.env["BALENA_PASSWORD"]
	for _, end := range []string{"\r", "\n", "\r\n", "\n\n"} {
		s.set("BALENA_PASSWORD", right+end)
		s.want(0, "check")
		writeText(t, filepath.Join(s.dir, "password"), right+end)
		s.set("BALENA_PASSWORD", "", "BALENA_PASSWORD_FILE", filepath.Join(s.dir, "password"))
		s.want(0, "check")
		delete(s.env, "BALENA_PASSWORD_FILE")
	}
}

// TestAClockThatIsWrongIsSaid is off by a year.
func TestAClockThatIsWrongIsSaid(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.server.ShiftClock(-365 * 24 * 60 * 60 * 1e9)
	p := s.start("run")
	s.ready()
	p.says("this machine's clock is wrong")
	contains(t, s.want(0, "status"), "clock", "365 days 0 h ahead of balena's")
	contains(t, s.want(0, "explain"), "This machine's clock is 365 days 0 h ahead of balena's")
	if out := s.want(0, "status"); !strings.Contains(out, "expires in 9 min") && !strings.Contains(out, "expires in 10 min 0 s") {
		t.Errorf("%s", out)
	}
	p.stop()
}
