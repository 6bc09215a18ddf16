package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
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
	s.binary = buildWith(t, "nethttpomithttp2")
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
	s.set("INJECTOR_TEMPLATES", template+":"+output, "INJECTOR_TEMPLATE_FILES", files, "INJECTOR_OUTPUT", "", "INJECTOR_STATE_DIR", filepath.Join(s.dir, "state"))
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
