package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestNotifyOnlyTheSameUsersProcess has two processes of one name. Root may signal both, and only its own is told.
func TestNotifyOnlyTheSameUsersProcess(t *testing.T) {
	t.Parallel()
	s := newNotifyStage(t)
	dir, name := memoryDir(t), "told-"+itoa(os.Getpid()) // a name of this run's own, which no other test's injector signals
	app := filepath.Join(dir, name)
	writeText(t, app,
		"#!/bin/sh\ntrap 'echo told >> $1' HUP\ntrap 'echo asked >> $1' USR1\necho ready >> $1\nwhile :; do sleep 0.05; done\n")
	for _, path := range []string{dir, app} {
		if err := os.Chmod(path, 0o777); err != nil { // the other user needs it
			t.Fatal(err)
		}
	}
	s.set("INJECTOR_NOTIFY_SIGNAL", "HUP:"+name)
	p := s.start("run")
	s.ready()
	ours, others := filepath.Join(dir, "ours"), filepath.Join(dir, "others")
	s.startApp(nil, app, ours)
	other := s.startApp(&syscall.Credential{Uid: appUser, Gid: appUser}, app, others)
	s.eventually("both, with their traps", func() bool { return len(lines(ours)) == 1 && len(lines(others)) == 1 })
	s.rotate()
	s.eventually("the signal", func() bool { return len(lines(ours)) == 2 })
	s.eventually("the end of it", func() bool { return strings.Contains(p.stderr.String(), "msg=notified") })
	// The answer to this signal comes after that to an earlier one.
	if err := syscall.Kill(other, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	s.eventually("the other's answer", func() bool { return strings.HasSuffix(strings.Join(lines(others), " "), "asked") })
	if got := strings.Join(lines(others), " "); got != "ready asked" {
		t.Errorf("another user's process: %s", got)
	}
	if got := strings.Join(lines(ours), " "); got != "ready told" {
		t.Errorf("the user's own process: %s", got)
	}
	p.stop()
}

// startApp starts a program beside the injector, as any user, until the test's end.
func (s *stage) startApp(user *syscall.Credential, args ...string) (pid int) {
	s.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: user}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
	return cmd.Process.Pid
}
