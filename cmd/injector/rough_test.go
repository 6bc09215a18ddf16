package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// TestALogThatNobodyReads is a full pipe: the key is revoked and the process ends all the same.
func TestALogThatNobodyReads(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	cmd := exec.Command(os.Args[0], "run")
	cmd.Env = []string{become + "=1"}
	for name, value := range s.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stderr = w
	fd := int(w.Fd()) // and with that it blocks
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for full := make([]byte, 4096); err == nil; {
		_, err = syscall.Write(fd, full)
	}
	if err := syscall.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.ready()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		t.Error("it does not end")
	}
	s.wantLive(0)
	s.wantNoFile()
}

// TestTheSameSignalTwice is what timeout(1) sends: to its child, and to the group that the child is in.
func TestTheSameSignalTwice(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	p := s.start("run")
	s.ready()
	p.signal(syscall.SIGTERM)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 0 {
		t.Errorf("exit %d", code)
	}
	s.wantLive(0)
	e := newExecStage(t)
	p = e.start("exec", "--", "sh", "-c", "trap 'sleep 0.5; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
	e.eventually("a start", func() bool { return strings.Contains(p.stdout.String(), "ready") })
	p.signal(syscall.SIGTERM)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 9 {
		t.Errorf("exec: exit %d", code)
	}
	e.wantLive(0)
}

// lives reports whether a process runs; a dead one that nobody has buried does not.
func lives(pid string) bool {
	raw, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(raw), ") Z ")
}

// TestExecEndsAllThatItsCommandStarted has a command that ends at once, and a child of it that does not: at a stop, at
// the command's own end, and at a rotation, where the next start must not meet it.
func TestExecEndsAllThatItsCommandStarted(t *testing.T) {
	const child = `(trap "" TERM; echo child >> $RECORD; exec sleep 60) & echo $! >> $RECORD; `
	start := func(t *testing.T, script string) (*stage, *proc, string) {
		t.Parallel()
		s := newExecStage(t)
		record := filepath.Join(s.dir, "record")
		s.set("RECORD", record, "INJECTOR_CHECK_INTERVAL", "1s")
		p := s.start("exec", "--", "sh", "-c", script)
		s.eventually("the child", func() bool { return len(lines(record)) == 2 })
		pid := lines(record)[0]
		if _, err := strconv.Atoi(pid); err != nil {
			pid = lines(record)[1]
		}
		return s, p, pid
	}
	t.Run("stop", func(t *testing.T) {
		s, p, pid := start(t, child+"wait")
		p.signal(syscall.SIGTERM)
		if code := p.wait(8 * time.Second); code != 143 {
			t.Errorf("exit %d", code)
		}
		if lives(pid) {
			t.Error("it lives on, with a token that is revoked")
		}
		s.wantLive(0)
	})
	t.Run("end", func(t *testing.T) {
		s, p, pid := start(t, child+"until [ $(wc -l <$RECORD) = 2 ]; do sleep 0.02; done; exit 7")
		if code := p.wait(8 * time.Second); code != 7 {
			t.Errorf("exit %d", code)
		}
		if lives(pid) {
			t.Error("it lives on, with a token that is revoked")
		}
		s.wantLive(0)
	})
	t.Run("rotation", func(t *testing.T) {
		s, p, pid := start(
			t,
			`[ ! -e $RECORD ] || { [ ! -d /proc/$(head -1 $RECORD) ] || echo met >> $RECORD; `+
				`echo second >> $RECORD; sleep 60; }; `+child+"wait",
		)
		s.server.DeleteKey(s.server.Live()[0].ID)
		record := s.env["RECORD"]
		s.eventually("the second start", func() bool { return strings.Contains(strings.Join(lines(record), " "), "second") })
		if lives(pid) || strings.Contains(strings.Join(lines(record), " "), "met") {
			t.Error("the second start met what the first had started")
		}
		p.signal(syscall.SIGTERM)
		p.wait(8 * time.Second)
		s.wantLive(0)
	})
}

// TestExecEndsAStoppedCommandInOrder has one that has stopped itself.
func TestExecEndsAStoppedCommandInOrder(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	p := s.start("exec", "--", "sh", "-c", `trap "exit 9" TERM; echo ready; kill -STOP $$; while :; do sleep 0.05; done`)
	s.eventually("a start", func() bool { return strings.Contains(p.stdout.String(), "ready") })
	p.signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 9 {
		t.Errorf("exit %d", code)
	}
	s.wantLive(0)
}

// TestPlacesThatMustNotBeWritten has outputs that are read at the same time, some by way of a link.
func TestPlacesThatMustNotBeWritten(t *testing.T) {
	s := newStage(t, balenatest.Options{})
	template, password := filepath.Join(s.dir, "app.tmpl"), filepath.Join(s.dir, "password")
	writeText(t, template, "{{.Token}}")
	writeText(t, password, s.env["BALENA_PASSWORD"])
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(s.dir, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{
		{"INJECTOR_TEMPLATES", template + ":" + template},
		{"INJECTOR_TEMPLATES", template + ":" + filepath.Join(link, "app.tmpl")},
		{"INJECTOR_TEMPLATES", "dotenv:" + template + "," + template + ":" + filepath.Join(s.dir, "other")},
		{"INJECTOR_OUTPUT", password, "BALENA_PASSWORD_FILE", password, "BALENA_PASSWORD", ""},
		{"INJECTOR_KEYS", "a,b", "INJECTOR_OUTPUT", "", "INJECTOR_A_OUTPUT", filepath.Join(s.dir, "x"), "INJECTOR_B_OUTPUT",
			filepath.Join(link, "x")},
		{"INJECTOR_SESSION_CACHE", filepath.Join(link, "session")},
		{"INJECTOR_TEMPLATE_FILES", "/proc/thread-self"},
	} {
		old := maps.Clone(s.env)
		s.set(c...)
		s.want(int(exitConfig), "check")
		s.env = old
	}
	if raw, err := os.ReadFile(password); err != nil || string(raw) != s.env["BALENA_PASSWORD"] {
		t.Error("the password's file is not as it was")
	}
	s.want(0, "check")
}

// TestTokenVariablesWithAMeaning would show the token, or be taken for something else.
func TestTokenVariablesWithAMeaning(t *testing.T) {
	s := newExecStage(t)
	for _, name := range []string{"LD_PRELOAD", "https_proxy", "BALENA_API_URL", "PATH", "BASH_ENV"} {
		s.set("INJECTOR_TOKEN_VARIABLES", name)
		contains(t, s.want(int(exitConfig), "exec", "--", "true"), name)
	}
}
