package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/probe"
)

// resident returns how much memory a process has.
func resident(t *testing.T, p *proc) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(raw))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// descriptors returns how many files a process has open.
func descriptors(t *testing.T, p *proc) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestThousandsOfConnections opens 3,000 of them to the address for probes, and sends nothing. They cost next to
// nothing, and who asks is answered.
func TestThousandsOfConnections(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.binary = buildReleased(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	s.set("INJECTOR_LISTEN", address)
	p := s.start("run")
	s.ready()
	before, files := resident(t, p), descriptors(t, p)
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for range 3000 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	resp, err := http.Get("http://" + address + "/readyz")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("a probe among them: %v, %v", resp, err)
	}
	if more := descriptors(t, p) - files; more > 40 {
		t.Errorf("%d descriptors more", more)
	}
	if more := resident(t, p) - before; more > 6<<20 {
		t.Errorf("%d kB more", more>>10)
	}
	p.stop()
}

// TestAStateDirectoryThatMovesOften counts descriptors while the state directory is taken away a hundred times.
func TestAStateDirectoryThatMovesOften(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	state := filepath.Join(s.dir, "state")
	s.set("INJECTOR_STATE_DIR", state, "INJECTOR_CHECK_INTERVAL", "1s")
	p := s.start("run")
	s.ready()
	files := descriptors(t, p)
	for n := range 100 {
		if err := os.Rename(state, fmt.Sprint(state, n)); err != nil {
			t.Fatal(err)
		}
		p.signal(syscall.SIGHUP) // so that it looks
		s.eventually("another one", func() bool { _, err := os.Stat(filepath.Join(state, "journal.json")); return err == nil })
	}
	s.eventually("an answer there", s.isReady)
	if more := descriptors(t, p) - files; more > 10 {
		t.Errorf("%d descriptors more", more)
	}
	p.stop()
}

// spent is the processor time that a process has used.
func spent(t *testing.T, p *proc) time.Duration {
	t.Helper()
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	var all time.Duration
	for _, path := range threads {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		n, err := strconv.ParseInt(strings.Fields(string(raw))[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all += time.Duration(n)
	}
	return all
}

// TestABusyDirectoryCostsNothing writes a log beside the password as fast as it can. It costs at most a hundredth of a
// core, and a change of the password is seen all the same.
func TestABusyDirectoryCostsNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.binary = buildReleased(t)
	login := filepath.Join(s.dir, "login")
	if err := os.Mkdir(login, 0o700); err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(login, "password")
	writeFile(t, password, s.env["BALENA_PASSWORD"])
	delete(s.env, "BALENA_PASSWORD")
	s.set("BALENA_PASSWORD_FILE", password)
	p := s.start("run")
	s.ready()
	writer := exec.Command("sh", "-c", "while :; do echo x >>"+filepath.Join(login, "log")+"; done")
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = writer.Process.Kill(); _ = writer.Wait() }()
	time.Sleep(2 * time.Second)
	const span = 10 * time.Second
	before := spent(t, p)
	time.Sleep(span)
	info, err := os.Stat(filepath.Join(login, "log"))
	if err != nil {
		t.Fatal(err)
	}
	if cost := spent(t, p) - before; cost > span/100 {
		t.Errorf("%v of %v, with %d lines written", cost, span, info.Size()/2)
	} else {
		t.Logf("%v of %v, with %d lines written", cost, span, info.Size()/2)
	}
	began := time.Now()
	writeFile(t, password, "wrong")
	p.says("the changed credential is refused")
	t.Logf("a change was found out after %v", time.Since(began))
	p.stop()
}

// TestAHeldHealthCheck answers news at once, and holds what is known.
func TestAHeldHealthCheck(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.set("INJECTOR_CHECK_INTERVAL", "1s")
	p := s.start("run")
	s.ready()
	contains(t, s.want(0, "healthcheck", "--hold=20s"), "ready")
	held := s.start("healthcheck", "--hold=1m")
	select {
	case <-held.done:
		t.Errorf("what is known is answered at once: %s", held.stdout.String())
	case <-time.After(2 * time.Second):
	}
	s.server.Fail(fault("mint"))
	s.server.DeleteKey(s.server.Live()[0].ID)
	if code := held.wait(20 * time.Second); code != 1 || !strings.Contains(held.stderr.String(), "the key is dead") {
		t.Errorf("exit %d: %s", code, held.stderr.String())
	}
	contains(t, s.want(int(exitConfig), "healthcheck", "--hold=1h"), "--hold", "up to 5m")
	s.server.Heal()
	s.ready()
	s.want(0, "healthcheck", "--hold=1m")
	held = s.start("healthcheck", "--hold=1m")
	time.Sleep(time.Second)
	p.stop() // and the one who asks is told
	if code := held.wait(8 * time.Second); code != 1 || strings.Contains(held.stderr.String(), "EOF") {
		t.Errorf("exit %d: %s", code, held.stderr.String())
	}
}

// TestStatusDuringTheStart asks from the first moment on, while notifications are being made: under the race detector.
func TestStatusDuringTheStart(t *testing.T) {
	t.Parallel()
	for range 5 {
		s := newStage(t, balenatest.Options{})
		s.set("INJECTOR_NOTIFY_COMMAND", "/bin/false", "INJECTOR_NOTIFY_FIRST", "true", "INJECTOR_NOTIFY_SIGNAL", "HUP:no-such-process")
		p := s.start("run")
		s.eventually("an answer with notifications in it", func() bool {
			r, err := probe.AskReport(t.Context(), s.stateDir(), nil)
			return err == nil && r.Ready && len(r.Keys[0].Untold) == 2
		})
		p.stop()
		if strings.Contains(p.stderr.String(), "DATA RACE") {
			t.Error("a data race")
		}
	}
}

// TestAnotherInjectorsHealth has two outputs in one directory, and so one state directory, and one injector.
func TestAnotherInjectorsHealth(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	p := s.start("run")
	s.ready()
	s.want(0, "healthcheck")
	mine := s.env["INJECTOR_OUTPUT"]
	s.set("INJECTOR_OUTPUT", filepath.Join(s.dir, "other-token"))
	contains(t, s.want(1, "healthcheck"), mine, "other-token", "INJECTOR_STATE_DIR")
	s.set("INJECTOR_OUTPUT", "", "INJECTOR_KEYS", "a", "INJECTOR_A_OUTPUT", filepath.Join(s.dir, "a"))
	s.want(1, "healthcheck")
	s.set("INJECTOR_KEYS", "", "INJECTOR_A_OUTPUT", "", "INJECTOR_STATE_DIR", filepath.Join(s.dir, ".injector"))
	s.want(0, "healthcheck") // which says nothing of outputs
	s.set("INJECTOR_OUTPUT", mine, "INJECTOR_STATE_DIR", "")
	p.stop()
}

// TestACacheOfSomebodyElse has a session in the cache's place that another user, or anybody, could have written.
func TestACacheOfSomebodyElse(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"another owner":  func(path string) error { return os.Chown(path, 4242, 4242) },
		"open to others": func(path string) error { return os.Chmod(path, 0o604) },
		"as it should":   func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, balenatest.Options{})
			bob := s.server.AddUser("bob", "bob's password", "")
			dir := filepath.Join(s.dir, "cache")
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			cache := filepath.Join(dir, "session")
			writeFile(t, cache, fmt.Sprintf(`{"url":%q,"login":"injector","session":%q}`, s.url, s.server.Session(bob, 0)))
			if err := change(cache); err != nil {
				t.Fatal(err)
			}
			s.set("INJECTOR_SESSION_CACHE", cache)
			p := s.start("run")
			s.ready()
			if used := s.server.Live()[0].Owner == bob.ID; used != (name == "as it should") {
				t.Errorf("the session was used: %v", used)
			}
			p.signal(syscall.SIGTERM)
			p.wait(8 * time.Second)
			s.wantLive(0)
		})
	}
}

// TestFilesOfTemplatesAreOpenedOnce swaps their directory for a link to where the environment lies.
func TestFilesOfTemplatesAreOpenedOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	files, template, output := filepath.Join(s.dir, "files"), filepath.Join(s.dir, "app.tmpl"), filepath.Join(s.dir, "out", "app.conf")
	for _, dir := range []string{files, filepath.Dir(output)} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeText(t, filepath.Join(files, "environ"), "the app's own")
	writeText(t, template, `{{file "environ"}}`)
	s.set("INJECTOR_TEMPLATES", template+":"+output, "INJECTOR_TEMPLATE_FILES", files, "INJECTOR_OUTPUT", "", "INJECTOR_STATE_DIR",
		filepath.Join(s.dir, "state"))
	p := s.start("run")
	s.ready()
	if err := os.Rename(files, files+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/self", files); err != nil {
		t.Fatal(err)
	}
	writeText(t, template, "again: {{file \"environ\"}}")
	s.eventually("another rendering", func() bool { raw, _ := os.ReadFile(output); return strings.HasPrefix(string(raw), "again") })
	if raw, _ := os.ReadFile(output); strings.Contains(string(raw), s.env["BALENA_PASSWORD"]) || string(raw) != "again: the app's own" {
		t.Errorf("%d bytes were rendered", len(raw))
	}
	s.set("INJECTOR_OUTPUT", output) // for what stop looks at
	p.stop()
}
