package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/child"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/tally"
)

// newExecStage is a stage without an output: the app has a variable.
func newExecStage(t *testing.T) *stage {
	s := newStage(t, balenatest.Options{})
	delete(s.env, "INJECTOR_OUTPUT")
	s.set("INJECTOR_STATE_DIR", filepath.Join(s.dir, "state"), "PATH", os.Getenv("PATH"), "INJECTOR_KILL_AFTER", "1s")
	return s
}

// lines are what a script has written to a file, line by line.
func lines(path string) []string {
	raw, _ := os.ReadFile(path)
	return strings.Fields(string(raw))
}

func TestExecExitsAsItsCommandDoes(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -9 $$": 137, "kill -TERM $$": 143, "exit 200": 200} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			s := newExecStage(t)
			s.want(want, "exec", "--", "sh", "-c", script)
			if n := s.server.Count("mint"); n != 1 {
				t.Errorf("%d mints", n)
			}
			s.wantLive(0)
		})
	}
}

func TestExecWithoutACommandToRun(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	contains(t, s.want(2, "exec"), "no command")
	contains(t, s.want(2, "exec", "--", "no-such-program"), "no-such-program", "PATH")
	s.set("INJECTOR_KILL_AFTER", "9s")
	contains(t, s.want(2, "exec", "--", "true"), "INJECTOR_KILL_AFTER", "INJECTOR_SHUTDOWN_TIMEOUT")
	if n := s.server.Count(""); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// notForChildren are the variables that no child may have, written out: the product's own list is what is tested.
// Those that begin with INJECTOR_ are not for children, either.
var notForChildren = []string{"BALENA_USERNAME", "BALENA_PASSWORD", "BALENA_PASSWORD_FILE", "BALENA_TOTP_SECRET", "BALENA_TOTP_SECRET_FILE",
	"BALENA_SESSION_TOKEN", "BALENA_SESSION_TOKEN_FILE", "BALENA_API_KEY_FILE"}

// wantNothingOfOurs looks at what `env` printed in a child: neither our variables nor what is in them.
func wantNothingOfOurs(t *testing.T, environment string, secrets ...string) {
	t.Helper()
	for line := range strings.Lines(environment) {
		name, _, _ := strings.Cut(line, "=")
		if strings.HasPrefix(name, "INJECTOR_") || slices.Contains(notForChildren, name) {
			t.Errorf("a child has %s", name)
		}
	}
	for _, secret := range secrets {
		if strings.Contains(environment, secret) {
			t.Errorf("a child sees %.4s…", secret)
		}
	}
}

// TestChildrenHaveNoCredential gives each credential in each of its forms, and looks at the environment of the command
// of exec, of a notification's, and of what wait becomes.
func TestChildrenHaveNoCredential(t *testing.T) {
	const totp = "JBSWY3DPEHPK3PXP"
	for name, set := range map[string]func(s *stage, file func(string) string){
		"variables": func(s *stage, _ func(string) string) {
			s.set("BALENA_TOTP_SECRET", totp, "BALENA_SESSION_TOKEN", s.server.Session(s.server.DefaultUser(), 0))
		},
		"files": func(s *stage, file func(string) string) {
			s.set("BALENA_PASSWORD_FILE", file(s.env["BALENA_PASSWORD"]), "BALENA_TOTP_SECRET_FILE", file(totp),
				"BALENA_SESSION_TOKEN_FILE", file(s.server.Session(s.server.DefaultUser(),
					0)), "BALENA_API_KEY_FILE", file("0123456789abcdef0123456789abcdef"))
			delete(s.env, "BALENA_PASSWORD")
		},
		"other names": func(s *stage, file func(string) string) {
			s.set("INJECTOR_USERNAME", s.env["BALENA_USERNAME"], "INJECTOR_PASSWORD", s.env["BALENA_PASSWORD"],
				"INJECTOR_TOTP_SECRET_FILE", file(totp))
			delete(s.env, "BALENA_USERNAME")
			delete(s.env, "BALENA_PASSWORD")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newExecStage(t)
			set(s, func(text string) string {
				path := filepath.Join(s.dir, fmt.Sprint("file", len(text)))
				writeFile(t, path, text)
				return path
			})
			secrets := []string{s.server.DefaultUser().Password, totp, "eyJ"}
			told := filepath.Join(s.dir, "told")
			s.set("INJECTOR_NOTIFY_COMMAND", `["sh","-c","env > `+told+`.new; mv `+told+`.new `+told+`"]`, "INJECTOR_NOTIFY_FIRST", "true")
			out := s.want(0, "exec", "--", "sh", "-c", "env; until [ -e "+told+" ]; do sleep 0.02; done; cat "+told)
			contains(t, out, "BALENA_TOKEN=", "TOKEN_GENERATION=1")
			wantNothingOfOurs(t, out, secrets...)
			if n := s.server.Count("mint"); n != 1 {
				t.Errorf("%d mints", n)
			}
			s.wantLive(0)
		})
	}
}

func TestExecEnvironment(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	s.set("INJECTOR_TOKEN_VARIABLES", "BALENA_TOKEN,BALENA_API_TOKEN", "APP_SETTING", "kept", "BALENA_API_KEY", "the platform's own")
	p := s.start("exec", "--", "env")
	if code := p.wait(10 * time.Second); code != 0 {
		t.Errorf("exit %d", code)
	}
	secret := s.server.Bearers()
	var seen []string
	for line := range strings.SplitSeq(strings.TrimSpace(p.stdout.String()), "\n") {
		name, value, _ := strings.Cut(line, "=")
		seen = append(seen, name)
		if (name == "BALENA_TOKEN" || name == "BALENA_API_TOKEN") && len(value) != 32 {
			t.Errorf("%s has %d characters", name, len(value))
		}
	}
	wantNothingOfOurs(t, p.stdout.String(), s.env["BALENA_PASSWORD"])
	contains(t, strings.Join(seen, " "), "BALENA_TOKEN", "BALENA_API_TOKEN", "APP_SETTING", "BALENA_API_URL", "PATH", "BALENA_API_KEY")
	for _, session := range secret {
		if strings.Count(session, ".") == 2 && strings.Contains(p.stdout.String(), session) {
			t.Error("the command has the session")
		}
	}
	s.wantLive(0)
}

func TestExecRestartsAtARotationOnly(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	s.set("INJECTOR_TTL", "10s", "INJECTOR_CHECK_INTERVAL", "1s", "INJECTOR_MAX_TTL", "1h")
	record := filepath.Join(s.dir, "starts")
	p := s.start("exec", "--", "sh", "-c", `echo "$BALENA_TOKEN" >> `+record+`; while :; do sleep 0.05; done`)
	s.eventually("an extension", func() bool { return s.server.Count("extend") > 0 && s.server.Count("find") > 1 })
	first := lines(record)
	if len(first) != 1 || !s.server.Accepts(first[0]) {
		t.Fatalf("started %d times before any rotation", len(first))
	}
	s.server.DeleteKey(s.server.Live()[0].ID)
	s.eventually("a restart", func() bool { return len(lines(record)) == 2 })
	if second := lines(record)[1]; second == first[0] || !s.server.Accepts(second) {
		t.Error("the command was not restarted with a good token")
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 143 {
		t.Errorf("exit %d", code)
	}
	s.wantLive(0)
}

func TestExecSignalsInsteadOfRestarting(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	output := s.token()
	s.set("INJECTOR_OUTPUT", output, "INJECTOR_CHECK_INTERVAL", "1s", "INJECTOR_ON_ROTATION", "USR1")
	record := filepath.Join(s.dir, "seen")
	p := s.start("exec", "--", "sh", "-c",
		`cat `+output+` >> `+record+`; echo >> `+record+`; trap 'cat `+output+` >> `+record+`; echo >> `+record+`' USR1; `+
			`echo ready >> `+record+`; while :; do sleep 0.05; done`,
	)
	s.eventually("a start", func() bool { return len(lines(record)) == 2 })
	s.server.DeleteKey(s.server.Live()[0].ID)
	s.eventually("the signal", func() bool { return len(lines(record)) == 3 })
	if !s.server.Accepts(lines(record)[2]) {
		t.Error("the file had no good token when the signal came")
	}
	p.signal(syscall.SIGTERM)
	p.wait(8 * time.Second)
	s.wantLive(0)
	s.wantNoFile()
}

func TestExecPassesSignals(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	record := filepath.Join(s.dir, "seen")
	p := s.start("exec", "--", "sh", "-c",
		`for s in HUP USR1 USR2 QUIT ALRM WINCH CONT; do trap "echo $s >> `+record+`" $s; done; `+
			`trap "echo TERM >> `+record+`; exit 3" TERM; `+
			`echo ready >> `+record+`; while :; do sleep 0.02; done`,
	)
	s.eventually("a start", func() bool { return len(lines(record)) == 1 })
	passed := []syscall.Signal{
		syscall.SIGHUP,
		syscall.SIGUSR1,
		syscall.SIGUSR2,
		syscall.SIGQUIT,
		syscall.SIGALRM,
		syscall.SIGWINCH,
		syscall.SIGCONT,
	}
	if len(child.Passed()) != len(passed)+2 { // those and the two that also begin the end
		t.Errorf("passed on: %v", child.Passed())
	}
	for i, sig := range passed {
		p.signal(sig)
		s.eventually(sig.String(), func() bool { return len(lines(record)) == i+2 })
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 3 {
		t.Errorf("exit %d", code)
	}
	// The end comes with a CONT, for a command that is stopped; this shell may see that before it is gone.
	got := strings.Replace(strings.Join(lines(record), " "), "TERM CONT", "TERM", 1)
	if got != "ready HUP USR1 USR2 QUIT ALRM WINCH CONT TERM" {
		t.Errorf("seen: %s", got)
	}
	s.wantLive(0)
}

func TestExecEndsByForce(t *testing.T) {
	for _, second := range []bool{false, true} {
		t.Run(fmt.Sprint(second), func(t *testing.T) {
			t.Parallel()
			s := newExecStage(t)
			s.set("INJECTOR_KILL_AFTER", "5s")
			if !second {
				s.set("INJECTOR_KILL_AFTER", "1s")
			}
			pids := filepath.Join(s.dir, "pids")
			p := s.start("exec", "--", "sh", "-c",
				`trap "" TERM; (trap "" TERM; echo $$ >> `+pids+`; exec sleep 60) & echo $! >> `+pids+`; wait; sleep 60`,
			)
			s.eventually("a start", func() bool { return len(lines(pids)) == 2 })
			began := time.Now()
			p.signal(syscall.SIGTERM)
			if second {
				s.eventually("the stop", func() bool { return strings.Contains(p.stderr.String(), "stopping the command") })
				s.eventually("that a further signal does not count as the same", func() bool { return time.Since(began) > 2*echo })
				p.signal(syscall.SIGTERM)
			}
			if code := p.wait(8 * time.Second); code != 137 {
				t.Errorf("exit %d", code)
			}
			if took := time.Since(began); took > tally.Slow(4*time.Second) {
				t.Errorf("it took %v", took)
			}
			if raw, err := os.ReadFile("/proc/" + lines(pids)[1] + "/stat"); err == nil && !strings.Contains(string(raw), ") Z ") {
				t.Errorf("what the command had started lives on: %s", raw)
			}
			s.wantLive(0)
		})
	}
}

func TestExecGivesUpAsInitDoes(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	started := filepath.Join(s.dir, "started")
	s.set("BALENA_PASSWORD", "wrong")
	contains(t, s.want(3, "exec", "--", "touch", started), "not accepted", "BALENA_PASSWORD")
	s.set("BALENA_PASSWORD", s.server.DefaultUser().Password, "INJECTOR_INIT_TIMEOUT", "1s")
	s.server.Fail(balenatest.Fault{Kind: "verify", Status: 503})
	contains(t, s.want(1, "exec", "--", "touch", started), "gave up after 1s", "verify the new key")
	if _, err := os.Stat(started); err == nil {
		t.Error("the command was started without a key")
	}
	s.wantLive(0)
}

func TestExecStoppedBeforeItsCommand(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	s.server.Fail(balenatest.Fault{Kind: "verify", Status: 503})
	p := s.start("exec", "--", "true")
	s.eventually("a mint", func() bool { return s.server.Count("verify") > 0 })
	p.signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 143 {
		t.Errorf("exit %d", code)
	}
	s.wantLive(0)
}

// TestExecAsPID1 makes orphans in a PID namespace of its own, and looks for zombies.
func TestExecAsPID1(t *testing.T) {
	s := newExecStage(t)
	script := `i=0; while [ $i -lt 20 ]; do (sleep 0.05 & sleep 0.01 &) ; i=$((i+1)); done; sleep 1; cat /proc/[0-9]*/stat; exit 4`
	cmd := exec.Command("unshare", "--pid", "--fork", "--mount-proc", os.Args[0], "exec", "--", "sh", "-c", script)
	cmd.Env = []string{become + "=1"}
	for name, value := range s.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var stderr syncBuffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != 4 {
		t.Fatalf("exit %d (%v): %s", code, err, stderr.String())
	}
	if !strings.HasPrefix(string(out), "1 (") {
		t.Fatalf("this was no PID namespace: %s", out)
	}
	if zombies := strings.Count(string(out), ") Z "); zombies > 0 {
		t.Errorf("%d zombies:\n%s", zombies, out)
	}
	s.wantLive(0)
}

// TestExecOnATerminal interrupts a command that handles it: the command decides what that means.
func TestExecOnATerminal(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	master, slave := openTerminal(t)
	record := filepath.Join(s.dir, "seen")
	p := &proc{s: s, done: make(chan struct{}), cmd: exec.Command(
		os.Args[0],
		"exec",
		"--",
		"sh",
		"-c",
		`trap "echo interrupted >> `+record+`" INT; echo ready >> `+record+`; `+
			`while ! grep -q interrupted `+record+`; do sleep 0.05; done; `+
			`read line; echo "$line" >> `+record+`; exit 5`,
	)}
	p.cmd.Env = []string{become + "=1"}
	for name, value := range s.env {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.done })
	s.eventually("a start", func() bool { return len(lines(record)) == 1 })
	if _, err := master.Write([]byte{3}); err != nil { // control and C
		t.Fatal(err)
	}
	s.eventually("the interruption", func() bool { return len(lines(record)) == 2 })
	if _, err := master.Write([]byte("typed\n")); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(8 * time.Second); code != 5 {
		t.Errorf("exit %d: %s", code, p.stderr.String())
	}
	if got := strings.Join(lines(record), " "); got != "ready interrupted typed" {
		t.Errorf("seen: %s", got)
	}
	s.wantLive(0)
}

// openTerminal returns both ends of a pseudo-terminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

func TestInstallAndWait(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	contains(t, s.want(0, "install", s.dir), filepath.Join(s.dir, "injector"))
	s.binary = filepath.Join(s.dir, "injector")
	s.set("PATH", os.Getenv("PATH"))
	app := &stage{t: t, server: s.server, dir: s.dir, binary: s.binary, log: s.log,
		env: map[string]string{
			"INJECTOR_OUTPUT":       s.token(),
			"INJECTOR_INIT_TIMEOUT": "1s",
			"BALENA_PASSWORD":       "secret of the app's container",
			"PATH":                  os.Getenv("PATH"),
		}}
	contains(t, app.want(1, "wait"), "gave up after 1s", s.token())
	app.set("INJECTOR_INIT_TIMEOUT", "20s")
	p := app.start("wait", "--", "sh", "-c", "cat "+s.token()+"; env; exit 6")
	select {
	case <-p.done:
		t.Fatal("it did not wait: ", p.stderr.String())
	default:
	}
	sidecar := s.start("run")
	if code := p.wait(10 * time.Second); code != 6 {
		t.Errorf("exit %d: %s", code, p.stderr.String())
	}
	out := p.stdout.String()
	if len(out) < 32 || !s.server.Accepts(out[:32]) {
		t.Errorf("the command saw: %q", out)
	}
	wantNothingOfOurs(t, out[32:], "secret of the app's container")
	app.want(0, "wait")
	sidecar.stop()
}

// TestExecStoppedDuringAReplacement starts nothing any more, and ends as the old command does.
func TestExecStoppedDuringAReplacement(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	s.set("INJECTOR_CHECK_INTERVAL", "1s", "INJECTOR_KILL_AFTER", "5s")
	record := filepath.Join(s.dir, "starts")
	p := s.start("exec", "--", "sh", "-c", `trap "sleep 1; exit 9" TERM; echo start >> `+record+`; while :; do sleep 0.05; done`)
	s.eventually("a start", func() bool { return len(lines(record)) == 1 })
	s.server.DeleteKey(s.server.Live()[0].ID)
	s.eventually("the replacement", func() bool { return strings.Contains(p.stderr.String(), "restarting the command") })
	p.signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 9 {
		t.Errorf("exit %d", code)
	}
	if n := len(lines(record)); n != 1 {
		t.Errorf("started %d times", n)
	}
	s.wantLive(0)
}

func TestExecHasNoUseForADelay(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	s.set("INJECTOR_SHUTDOWN_DELAY", "5s", "INJECTOR_KILL_AFTER", "3s")
	started := filepath.Join(s.dir, "started")
	p := s.start("exec", "--", "sh", "-c", `trap "" TERM; touch `+started+`; while :; do sleep 0.05; done`)
	s.eventually("a start", func() bool { _, err := os.Stat(started); return err == nil })
	p.signal(syscall.SIGTERM)
	if code := p.wait(9 * time.Second); code != 137 {
		t.Errorf("exit %d", code)
	}
	contains(t, p.stderr.String(), "INJECTOR_SHUTDOWN_DELAY is not used")
	s.wantLive(0)
}

// TestExecIgnoresNoSignalForItsCommand looks at what the command inherits: SIGPIPE ends it, as usual.
func TestExecIgnoresNoSignalForItsCommand(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	out := s.want(0, "exec", "--", "sh", "-c", "grep SigIgn /proc/self/status")
	var ignored uint64
	if _, err := fmt.Sscanf(out[strings.Index(out, "SigIgn:"):], "SigIgn: %x", &ignored); err != nil ||
		ignored&(1<<(syscall.SIGPIPE-1)) != 0 {
		t.Errorf("ignored: %x, %v", ignored, err)
	}
}

// TestRevokeAfterAKilledExec finds the state where exec keeps it by itself.
func TestRevokeAfterAKilledExec(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	delete(s.env, "INJECTOR_STATE_DIR")
	s.set("INJECTOR_NAME", "exec-"+itoa(os.Getpid())) // a place of its own
	started := filepath.Join(s.dir, "started")
	p := s.start("exec", "--", "sh", "-c", "touch "+started+"; sleep 30")
	s.eventually("a start", func() bool { _, err := os.Stat(started); return err == nil })
	s.want(0, "healthcheck")
	contains(t, s.want(0, "status"), "exec, pid")
	p.signal(syscall.SIGKILL)
	p.wait(3 * time.Second)
	s.wantLive(1)
	s.want(0, "revoke")
	s.wantLive(0)
	dirs, _ := filepath.Glob("/dev/shm/injector-*-*")
	for _, dir := range dirs {
		if raw, err := os.ReadFile(filepath.Join(dir, "journal.json")); err == nil && strings.Contains(string(raw), `"keys": []`) {
			_ = os.RemoveAll(dir)
		}
	}
}

// TestWaitForAKeyThatHasExpired has the files of a sidecar that was killed.
func TestWaitForAKeyThatHasExpired(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.set("INJECTOR_TTL", "10s", "INJECTOR_INIT_TIMEOUT", "1s")
	p := s.start("run")
	s.ready()
	s.want(0, "wait")
	p.signal(syscall.SIGKILL)
	p.wait(time.Second)
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(s.token()+".json", old, old); err != nil {
		t.Fatal(err)
	}
	contains(t, s.want(1, "wait"), "holds a key that has expired")
	s.want(0, "revoke")
	s.wantLive(0)
}

// TestExecsSideBySide have the same user and configuration, and say nothing about places.
func TestExecsSideBySide(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	delete(s.env, "INJECTOR_STATE_DIR")
	s.set("INJECTOR_NAME", "side-"+itoa(os.Getpid()))
	first := s.start("exec", "--", "sleep", "20")
	s.eventually("the first", func() bool { return len(s.server.Live()) == 1 })
	s.want(7, "exec", "--", "sh", "-c", "exit 7")
	first.signal(syscall.SIGTERM)
	if code := first.wait(8 * time.Second); code != 143 {
		t.Errorf("exit %d", code)
	}
	s.wantLive(0)
	dirs, _ := filepath.Glob(config.ExecPlace() + "*")
	for _, dir := range dirs {
		if raw, err := os.ReadFile(filepath.Join(dir, "journal.json")); err == nil && strings.Contains(string(raw), `"keys": []`) {
			_ = os.RemoveAll(dir)
		}
	}
}
