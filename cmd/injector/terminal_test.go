package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestExecStopsAndGoesOnOnATerminal presses control and Z in a shell that has job control, and types fg.
func TestExecStopsAndGoesOnOnATerminal(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	pids, script := filepath.Join(s.dir, "pids"), filepath.Join(s.dir, "app")
	// It starts no process of its own: a shell that is doing so is not stopped until that one runs.
	writeText(t, script, `echo $PPID $$ >> `+pids+`; read line; [ "$line" = typed ] && exit 5`)
	p, press := s.startShell()
	press(os.Args[0] + " exec -- sh " + script + "\n")
	s.eventually("a start", func() bool { return len(lines(pids)) == 2 })
	both := lines(pids)
	press("\x1a") // control and Z
	s.eventually("that both are stopped", func() bool { return state(both[0]) == "T" && state(both[1]) == "T" })
	press("fg\n")
	s.eventually("that both go on", func() bool { return state(both[0]) != "T" && state(both[1]) != "T" })
	press("typed\n") // the terminal is the command's again
	s.eventually("the end of both", func() bool { return state(both[0]) == "" && state(both[1]) == "" })
	press("exit $?\n")
	if code := p.wait(8 * time.Second); code != 5 {
		t.Errorf("exit %d", code)
	}
	if n := s.server.Count("mint"); n != 1 {
		t.Errorf("%d mints", n)
	}
	s.wantLive(0)
}

// startShell starts a shell that leads the session of a new terminal. What it and its jobs print is the log's.
func (s *stage) startShell() (p *proc, press func(keys string)) {
	s.t.Helper()
	master, slave := openTerminal(s.t)
	p = &proc{s: s, done: make(chan struct{}), cmd: exec.Command("bash", "--norc", "--noprofile", "--noediting", "-i")}
	p.cmd.Env = []string{become + "=1", "HOME=" + s.dir}
	for name, value := range s.env {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { _, _ = io.Copy(s.log, master) }() // a terminal that nobody reads holds its writers up
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	s.t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.done })
	return p, func(keys string) {
		s.t.Helper()
		if _, err := master.WriteString(keys); err != nil {
			s.t.Fatal(err)
		}
	}
}

// state is a process's, as ps shows it; T is a stopped one's, and one that is gone has none.
func state(pid string) string {
	raw, _ := os.ReadFile("/proc/" + pid + "/stat")
	_, rest, _ := strings.Cut(string(raw), ") ")
	state, _, _ := strings.Cut(rest, " ")
	return state
}

// TestExecWithARedirectedInput has a command that reads from the terminal though its standard input is something else.
func TestExecWithARedirectedInput(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	script := filepath.Join(s.dir, "app")
	writeText(t, script, "read line </dev/tty; [ \"$line\" = typed ] && exit 5\n")
	p, press := s.startShell()
	press(os.Args[0] + " exec -- sh " + script + " </dev/null\n")
	s.eventually("the command", func() bool { return strings.Contains(s.log.String(), "started the command") })
	press("typed\n")
	s.eventually("its end", func() bool { return strings.Contains(s.log.String(), "the command has ended") })
	press("exit $?\n")
	if code := p.wait(8 * time.Second); code != 5 {
		t.Errorf("exit %d", code)
	}
	s.wantLive(0)
}

// TestAStoppedCommandIsNoticed stops a command of exec, and lets it go on.
func TestAStoppedCommandIsNoticed(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	record := filepath.Join(s.dir, "pid")
	p := s.start("exec", "--", "sh", "-c", "echo $$ > "+record+"; while :; do sleep 0.05; done")
	s.eventually("a start", func() bool { return len(lines(record)) == 1 })
	kill := func(sig string) {
		t.Helper()
		if out, err := exec.Command("kill", "-"+sig, lines(record)[0]).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
	}
	kill("STOP")
	s.eventually("a word about it", func() bool { return strings.Contains(p.stderr.String(), "the command is stopped") })
	kill("CONT")
	s.eventually("a word about that", func() bool { return strings.Contains(p.stderr.String(), "the command goes on") })
	p.signal(syscall.SIGTERM)
	p.wait(8 * time.Second)
	s.wantLive(0)
}
