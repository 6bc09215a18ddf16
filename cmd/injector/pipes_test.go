package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// plants are what an app can put in the place of a file that is read.
var plants = map[string]func(path string) error{
	"a pipe":          func(path string) error { return syscall.Mkfifo(path, 0o666) },
	"an endless file": func(path string) error { return os.Symlink("/dev/zero", path) },
	"a directory":     func(path string) error { return os.Mkdir(path, 0o700) },
	"a socket":        func(path string) error { return syscall.Mknod(path, syscall.S_IFSOCK|0o666, 0) },
}

func plant(t *testing.T, path string, what func(string) error) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(path), what(path)); err != nil {
		t.Fatal(err)
	}
}

// TestWhatAnAppPlantsBesideAnOrphansOutput has a key that is not configured any more, beside whose output the app has
// put something that cannot be read to its end. The start is not held up, nor is the stop.
func TestWhatAnAppPlantsBesideAnOrphansOutput(t *testing.T) {
	for name, what := range plants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newKeysStage(t)
			p := s.start("run")
			s.ready()
			p.signal(syscall.SIGQUIT)
			p.wait(5 * time.Second)
			plant(t, filepath.Join(s.dir, "fleet.json"), what)
			s.set("INJECTOR_KEYS", "deploy")
			for name := range s.env {
				if strings.HasPrefix(name, "INJECTOR_FLEET_") {
					delete(s.env, name)
				}
			}
			p = s.start("run")
			s.ready()
			s.eventually("the other's end", func() bool { return len(s.server.Live()) == 1 })
			if used := resident(t, p); used > 100<<20 { // of the test's binary, with the race detector
				t.Errorf("%d MB resident", used>>20)
			}
			p.signal(syscall.SIGTERM)
			if code := p.wait(8 * time.Second); code != 0 {
				t.Errorf("exit %d", code)
			}
			s.wantLive(0)
		})
	}
}

// TestWaitIsNotHeldUp has the same in the place of what wait reads: it ends at its limit, and at a signal.
func TestWaitIsNotHeldUp(t *testing.T) {
	for name, what := range plants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, balenatest.Options{})
			s.set("INJECTOR_INIT_TIMEOUT", "1s")
			writeText(t, s.token(), "token")
			plant(t, s.token()+".json", what)
			if code := s.start("wait").wait(5 * time.Second); code != 1 {
				t.Errorf("exit %d", code)
			}
			s.set("INJECTOR_INIT_TIMEOUT", "1m")
			p := s.start("wait")
			s.eventually("the wait", func() bool { return strings.Contains(p.stderr.String(), "waiting") })
			p.signal(syscall.SIGTERM)
			if code := p.wait(5 * time.Second); code != 1 {
				t.Errorf("after a signal: exit %d", code)
			}
			s.wantLive(0)
		})
	}
}

// TestADirectoryThatBecomesAPipe replaces the output's directory while the injector runs.
func TestADirectoryThatBecomesAPipe(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	dir := filepath.Join(s.dir, "out")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.set("INJECTOR_OUTPUT", filepath.Join(dir, "token"), "INJECTOR_STATE_DIR", filepath.Join(s.dir, "state"))
	p := s.start("run")
	s.ready()
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	plant(t, dir, plants["a pipe"])
	s.eventually("not ready", func() bool { return !s.isReady() })
	s.want(0, "healthcheck", "--live")
	p.signal(syscall.SIGTERM)
	p.wait(8 * time.Second)
	s.wantLive(0)
}

// TestADirectoryThatBecomesALink has an app that leads the output elsewhere.
func TestADirectoryThatBecomesALink(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	dir, victim := filepath.Join(s.dir, "out"), filepath.Join(s.dir, "victim")
	for _, path := range []string{dir, victim} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeText(t, filepath.Join(victim, "token"), "somebody else's")
	s.set("INJECTOR_OUTPUT", filepath.Join(dir, "token"), "INJECTOR_STATE_DIR", filepath.Join(s.dir, "state"))
	p := s.start("run")
	s.ready()
	if err := errors.Join(os.Rename(dir, dir+".old"), os.Symlink("victim", dir)); err != nil {
		t.Fatal(err)
	}
	s.eventually("not ready", func() bool { return !s.isReady() })
	contains(t, s.want(1, "healthcheck"), "through a link", dir)
	p.signal(syscall.SIGTERM)
	p.wait(8 * time.Second)
	if raw, err := os.ReadFile(filepath.Join(victim, "token")); err != nil || string(raw) != "somebody else's" {
		t.Errorf("%q, %v", raw, err)
	}
	s.wantLive(0)
}

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
