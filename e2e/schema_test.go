package e2e

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// shell is an injector as somebody has it in a shell, against a stand-in in this process.
type shell struct {
	t      *testing.T
	server *balenatest.Server
	binary string
	env    []string
}

func newShell(t *testing.T) *shell {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "injector-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &shell{t: t, server: balenatest.New(balenatest.Options{}), binary: filepath.Join(t.TempDir(), "injector")}
	sh(t, "sh", "../build.sh", s.binary)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	api := &http.Server{Handler: s.server, ReadHeaderTimeout: time.Second}
	go func() { _ = api.Serve(l) }()
	t.Cleanup(func() { _ = api.Close() })
	u := s.server.DefaultUser()
	s.env = []string{"BALENA_API_URL=http://" + l.Addr().String(), "BALENA_USERNAME=" + u.Name, "BALENA_PASSWORD=" + u.Password,
		"INJECTOR_OUTPUT=" + filepath.Join(dir, "balena-token"), "INJECTOR_CHECK_INTERVAL=1s",
		"INJECTOR_NOTIFY_URL=http://127.0.0.1:1/nobody", "INJECTOR_NOTIFY_FIRST=true"}
	return s
}

func (s *shell) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.binary, args...)
	cmd.Env = s.env
	return cmd
}

// TestStatusIsAsItsSchemaSays of an injector that never was, that runs, that fails and that was killed.
func TestStatusIsAsItsSchemaSays(t *testing.T) {
	s := newShell(t)
	schema, err := jsonschema.NewCompiler().Compile("../docs/status.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	valid := func(when, part string) {
		t.Helper()
		var out []byte
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			out, _ = s.command("status", "--json").Output() // it ends with 1 where none runs
			if bytes.Contains(out, []byte(part)) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: no %s in\n%s", when, part, out)
			}
		}
		status, err := jsonschema.UnmarshalJSON(bytes.NewReader(out))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(status); err != nil {
			t.Errorf("%s: %v\n%s", when, err, out)
		}
	}
	valid("before the first start", `"state": "absent"`)
	run := s.command("run")
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	valid("ready", `"ready": true`)
	valid("not notified", `"untold": [`)
	s.server.Fail(balenatest.Fault{Status: http.StatusServiceUnavailable})
	valid("an outage", `"trouble": [`)
	s.server.Heal()
	_ = run.Process.Signal(syscall.SIGKILL)
	_ = run.Wait()
	valid("killed", `"state": "crashed"`)
	if out, err := s.command("revoke").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	valid("revoked", `"state": "stopped"`)
	if live := s.server.Live(); len(live) > 0 {
		t.Errorf("%d keys are live", len(live))
	}
}
