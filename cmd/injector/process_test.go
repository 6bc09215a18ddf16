package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/tally"
)

// become makes the test binary be the injector, race detector and all.
const become = "TEST_BECOME_INJECTOR"

func TestMain(m *testing.M) {
	if os.Getenv(become) != "" {
		_ = os.Unsetenv(become)
		denySystemCalls()
		main()
	}
	useDefaultSignals()
	tally.Slow(0) // measures, while nothing runs yet
	flag.Parse()
	_ = flag.Set("test.parallel", "6") // these tests wait for other processes most of the time
	os.Exit(tally.Run(m))
}

// useDefaultSignals makes the processes that tests start react to signals as usual, also where nohup or a script's &
// has made them ignored: what is caught here is at its default there.
func useDefaultSignals() {
	for sig := syscall.Signal(1); sig < 32; sig++ {
		if sig != syscall.SIGPIPE && signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
}

// stage is a server, a directory in memory, and the variables that an injector gets.
type stage struct {
	t      *testing.T
	server *balenatest.Server
	url    string
	dir    string
	env    map[string]string
	binary string              // empty: this test binary
	user   *syscall.Credential // whom it runs as; nil: the one who tests
	log    *syncBuffer         // all that all injectors wrote
}

func newStage(t *testing.T, opts balenatest.Options) *stage {
	t.Helper()
	s := &stage{t: t, server: balenatest.New(opts), dir: memoryDir(t), log: &syncBuffer{}}
	s.url = s.server.Start(t)
	u := s.server.DefaultUser()
	s.env = map[string]string{"BALENA_API_URL": s.url, "BALENA_USERNAME": u.Name, "BALENA_PASSWORD": u.Password,
		"INJECTOR_OUTPUT": s.token(), "INJECTOR_LOG_LEVEL": "debug", "INJECTOR_TTL": "10m"}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", s.log.String())
		}
		for _, secret := range []string{u.Password, "eyJhb"} {
			if strings.Contains(s.log.String(), secret) {
				t.Errorf("the output shows %.3s…", secret)
			}
		}
	})
	return s
}

// memoryDir is a directory where keys may lie.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "injector-test-")
	if err != nil {
		t.Fatalf("these tests need a tmpfs at /dev/shm: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (s *stage) token() string { return filepath.Join(s.dir, "balena-token") }

func (s *stage) set(pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		s.env[pairs[i]] = pairs[i+1]
	}
}

// proc is a running injector.
type proc struct {
	s      *stage
	cmd    *exec.Cmd
	stdout syncBuffer
	stderr syncBuffer
	done   chan struct{}
}

func (s *stage) start(args ...string) *proc {
	s.t.Helper()
	p := &proc{s: s, done: make(chan struct{}), cmd: exec.Command(cmp.Or(s.binary, os.Args[0]), args...)}
	p.cmd.Env = []string{become + "=1"}
	for name, value := range s.env {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	// In a session of its own: without the terminal that the person who runs these tests may have.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: s.user}
	p.cmd.WaitDelay = time.Second // a command of exec may live on, with our pipes
	p.cmd.Stdout = &p.stdout
	p.cmd.Stderr = io.MultiWriter(&p.stderr, s.log)
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	s.t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.done })
	return p
}

// wait waits for the end and returns the exit code; -1 for a signal.
func (p *proc) wait(within time.Duration) int {
	p.s.t.Helper()
	select {
	case <-p.done:
	case <-time.After(tally.Slow(within)):
		p.s.t.Fatalf("%v did not end within %v", p.cmd.Args[1:], within)
	}
	_, _ = p.s.log.Write([]byte(p.stdout.String()))
	return p.cmd.ProcessState.ExitCode()
}

func (p *proc) signal(sig syscall.Signal) {
	p.s.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.s.t.Fatal(err)
	}
}

// insist sends a signal until the process has ended: one right after another counts as the same.
func (p *proc) insist(sig syscall.Signal) {
	p.s.t.Helper()
	p.s.eventually("its end at a further signal", func() bool {
		_ = p.cmd.Process.Signal(sig)
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	})
}

// do runs a command to its end and returns exit code and all output.
func (s *stage) do(args ...string) (int, string) {
	s.t.Helper()
	p := s.start(args...)
	code := p.wait(30 * time.Second)
	return code, p.stdout.String() + p.stderr.String()
}

func (s *stage) want(code int, args ...string) string {
	s.t.Helper()
	got, out := s.do(args...)
	if got != code {
		s.t.Errorf("%v: exit %d, not %d:\n%s", args, got, code, out)
	}
	return out
}

// eventually waits for a condition that another process brings about; for long, since many of them share the machine.
func (s *stage) eventually(what string, holds func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(tally.Slow(time.Minute)); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if holds() {
			return
		}
	}
	s.t.Fatalf("waited in vain: %s", what)
}

func (s *stage) ready() {
	s.t.Helper()
	s.eventually("ready", func() bool {
		code, _, err := probe.Ask(s.t.Context(), s.stateDir(), "/readyz", 0)
		return err == nil && code == http.StatusOK
	})
}

func (s *stage) stateDir() string {
	if dir := s.env["INJECTOR_STATE_DIR"]; dir != "" {
		return dir
	}
	return filepath.Join(s.dir, ".injector")
}

func (s *stage) wantLive(n int) {
	s.t.Helper()
	s.server.Settle()
	live := s.server.Live()
	tally.Add("keys leaked", max(0, len(live)-n))
	if len(live) != n {
		s.t.Errorf("%d keys are live, not %d: %+v", len(live), n, live)
	}
}

func (s *stage) wantNoFile() {
	s.t.Helper()
	for _, path := range []string{s.env["INJECTOR_OUTPUT"], s.env["INJECTOR_OUTPUT"] + ".json"} {
		if info, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) &&
			(err != nil || info.Mode().IsRegular()) {
			s.t.Errorf("%s is left", path)
		}
	}
}

// stop ends an injector as an orchestrator does, and expects a clean end.
func (p *proc) stop() {
	p.s.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 0 {
		p.s.t.Errorf("exit %d", code)
	}
	p.s.wantLive(0)
	p.s.wantNoFile()
}

func (s *stage) report() probe.Report {
	s.t.Helper()
	var r probe.Report
	if err := json.Unmarshal([]byte(s.want(0, "status", "--json")), &r); err != nil {
		s.t.Fatal(err)
	}
	return r
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	temp := fmt.Sprintf("%s.%d", path, time.Now().UnixNano())
	if err := errors.Join(os.WriteFile(temp, []byte(text), 0o600), os.Rename(temp, path)); err != nil {
		t.Fatal(err)
	}
}
