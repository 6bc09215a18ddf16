package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/internal/sidecar"
)

// ownPlace is the state directory that an exec has chosen by itself.
func ownPlace(p *proc) string {
	for _, dir := range sidecar.ExecPlaces() {
		if raw, err := os.ReadFile(filepath.Join(dir, "lock")); err == nil &&
			strings.Contains(string(raw), `"pid":`+itoa(p.cmd.Process.Pid)+",") {
			return dir
		}
	}
	return ""
}

// TestACleanEndLeavesNoPlace runs exec a few times: each life begins with the first generation, and leaves nothing in
// memory. What a later start has to know stays.
func TestACleanEndLeavesNoPlace(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	delete(s.env, "INJECTOR_STATE_DIR")
	s.set("INJECTOR_NAME", "clean-"+itoa(os.Getpid()))
	begin := func(script string) (p *proc, place string) {
		p = s.start("exec", "--", "sh", "-c", script)
		s.eventually("a place", func() bool { place = ownPlace(p); return place != "" })
		p.says("started the command")
		return p, place
	}
	for range 3 {
		p, place := begin("sleep 0.2")
		if code := p.wait(8 * time.Second); code != 0 {
			t.Errorf("exit %d", code)
		}
		contains(t, p.stderr.String(), "generation=1 ")
		if _, err := os.Lstat(place); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", place, err)
		}
		s.wantLive(0)
	}
	p, place := begin("sleep 0.2; exit 3") // the next one is paced
	p.wait(8 * time.Second)
	if _, err := os.Lstat(filepath.Join(place, "journal.json")); err != nil {
		t.Errorf("what the next start has to know is gone: %v", err)
	}
	s.want(0, "revoke")
	if _, err := os.Lstat(place); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left by revoke: %v", place, err)
	}
	s.wantLive(0)
}

// TestAPlaceWithATwoFactorCode keeps the number of the last code, which must not be sent twice, and nothing else.
func TestAPlaceWithATwoFactorCode(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	delete(s.env, "INJECTOR_STATE_DIR")
	const seed = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
	u := s.server.AddUser("careful", "careful's password", seed)
	s.set("INJECTOR_NAME", "totp-"+itoa(os.Getpid()), "BALENA_USERNAME", u.Name, "BALENA_PASSWORD", u.Password, "BALENA_TOTP_SECRET", seed)
	p := s.start("exec", "--", "sleep", "0.2")
	var place string
	s.eventually("a place", func() bool { place = ownPlace(p); return place != "" })
	t.Cleanup(func() { _ = os.RemoveAll(place) })
	if code := p.wait(40 * time.Second); code != 0 {
		t.Errorf("exit %d", code)
	}
	if _, err := os.Lstat(filepath.Join(place, "journal.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the journal is left: %v", err)
	}
	if raw, err := os.ReadFile(filepath.Join(place, "refused-logins.json")); err != nil || !strings.Contains(string(raw), `"last_totp"`) {
		t.Errorf("%s, %v", raw, err)
	}
	s.wantLive(0)
}

// TestWhatLeavesItsGroupIsEnded starts a process in a session of its own, which outlives its parent, with the token.
func TestWhatLeavesItsGroupIsEnded(t *testing.T) {
	for name, ends := range map[string]func(p *proc){
		"the command ends":   func(*proc) {},
		"somebody ends it":   func(p *proc) { p.signal(syscall.SIGTERM) },
		"it ignores SIGTERM": func(p *proc) { p.signal(syscall.SIGTERM) },
		"a stop by SIGINT":   func(p *proc) { p.signal(syscall.SIGINT) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newExecStage(t)
			file := filepath.Join(s.dir, "stray")
			stray := "echo $$ >" + file + ".new; mv " + file + ".new " + file + "; while :; do sleep 0.05; done"
			asked, child := filepath.Join(s.dir, "asked"), "sleep 31."+itoa(os.Getpid())
			if strings.HasPrefix(name, "it ignores") {
				stray = "trap '' TERM; " + child + " & " + stray // and has a child that becomes ours when it is killed
			} else {
				stray = "trap 'echo >" + asked + "; exit' TERM; " + stray
			}
			after := "; exec sleep 60"
			if name == "the command ends" {
				after = ""
			}
			p := s.start("exec", "--", "sh", "-c",
				"setsid sh -c '"+strings.ReplaceAll(stray, "'", `'\''`)+"' & until [ -e "+file+" ]; do sleep 0.02; done"+after,
			)
			s.eventually("the stray", func() bool { _, err := os.Stat(file); return err == nil })
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
			ends(p)
			p.wait(20 * time.Second)
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("it lives on: %v", err)
			}
			if left, _ := exec.Command("pgrep", "-af", child).Output(); strings.HasPrefix(name, "it ignores") && len(left) > 0 {
				t.Errorf("its child lives on: %s", left)
			}
			if _, err := os.Stat(asked); err != nil && !strings.HasPrefix(name, "it ignores") {
				t.Error("it was killed without being asked to end")
			}
			s.wantLive(0)
		})
	}
}

// TestTwoSignalsAtOnce reach exec within milliseconds, as GNU timeout sends them: they count as one, and the keys are
// revoked.
func TestTwoSignalsAtOnce(t *testing.T) {
	t.Parallel()
	good := 0
	for n := 0; good < 10 && n < 100; n++ {
		s := newExecStage(t)
		p := s.start("exec", "--", "sleep", "60")
		p.says("started the command")
		began := time.Now()
		p.signal(syscall.SIGTERM)
		time.Sleep(time.Duration(4*good) * time.Millisecond)
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		together := time.Since(began) < echo/2 // else this test was kept from sending them so
		if code := p.wait(8 * time.Second); together && code != 143 {
			t.Errorf("exit %d", code)
		}
		if together {
			good++
			s.wantLive(0)
		}
	}
	if good < 10 {
		t.Errorf("%d of 10 pairs of signals were sent together", good)
	}
}

// TestManyExecsAtOnce start and end in few places, which come and go under them.
func TestManyExecsAtOnce(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	delete(s.env, "INJECTOR_STATE_DIR")
	s.set("INJECTOR_NAME", "crowd-"+itoa(os.Getpid()), "INJECTOR_INIT_TIMEOUT", "3m")
	var all []*proc
	for range sidecar.MostExecs + 8 {
		all = append(all, s.start("exec", "--", "sleep", "1"))
	}
	for _, p := range all {
		if code := p.wait(3 * time.Minute); code != 0 {
			t.Errorf("exit %d", code)
		}
	}
	if log := s.log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "address already in use") {
		t.Error("they get into each other's way")
	}
	s.wantLive(0)
}

// TestRevokeFindsAllExecs kills two of them that ran side by side.
func TestRevokeFindsAllExecs(t *testing.T) {
	t.Parallel()
	s := newExecStage(t)
	delete(s.env, "INJECTOR_STATE_DIR")
	s.set("INJECTOR_NAME", "two-"+itoa(os.Getpid()))
	var both []*proc
	for range 2 {
		p := s.start("exec", "--", "sleep", "60")
		p.says("started the command")
		both = append(both, p)
	}
	contains(t, s.want(0, "status"), "more execs")
	for _, p := range both {
		p.signal(syscall.SIGKILL)
		p.wait(8 * time.Second)
	}
	s.wantLive(2)
	s.want(0, "revoke")
	s.wantLive(0)
}

// TestProbesAskTheirOwnInjectorOnly has an exec of another configuration run as the same user.
func TestProbesAskTheirOwnInjectorOnly(t *testing.T) {
	s := newExecStage(t)
	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.binary, s.user = filepath.Join(s.dir, "injector.test"), &syscall.Credential{Uid: 4325, Gid: 4325}
	copyFile(t, os.Args[0], s.binary)
	delete(s.env, "INJECTOR_STATE_DIR")
	p := s.start("exec", "--", "sleep", "60")
	p.says("started the command")
	s.want(0, "healthcheck")
	s.set("BALENA_USERNAME", "somebody-else")
	contains(t, s.want(1, "healthcheck"), "not ready", "execs have their state in /dev/shm/injector-4325-")
	contains(t, s.want(0, "status"), "exec, pid") // a person may look
	p.signal(syscall.SIGTERM)
	p.wait(8 * time.Second)
	s.wantLive(0)
}
