package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

const clientsDir = "../../internal/clients"

// needClients skips a test without the clients, which `make clients` installs; CI must have them.
func needClients(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil && program == "node" {
		_, err = os.Stat(filepath.Join(clientsDir, "node_modules", "balena-cli"))
	}
	if err == nil {
		return path
	}
	if os.Getenv("CI_HAS_ALL") != "" {
		t.Fatalf("real clients cannot be tried: %v", err)
	}
	t.Skipf("LEFT OUT: real clients cannot be tried (%v); run `make clients`", err)
	return ""
}

// newClientStage is a stage with the CLI's data directory as output.
func newClientStage(t *testing.T) (s *stage, data string) {
	s = newStage(t, balenatest.Options{})
	data = filepath.Join(s.dir, "balena")
	s.set("INJECTOR_CHECK_INTERVAL", "1s", "INJECTOR_TEMPLATES", "balena-cli:"+data, "INJECTOR_OUTPUT", s.token())
	return s, data
}

// balenaCLI runs the CLI and returns its exit code and all that it printed.
func (s *stage) balenaCLI(data string, args ...string) (int, string) {
	s.t.Helper()
	cli, err := filepath.Abs(filepath.Join(clientsDir, "node_modules", ".bin", "balena"))
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(cli, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "BALENARC_DATA_DIRECTORY=" + data, "BALENARC_API_URL=" + s.url,
		"BALENARC_NO_ANALYTICS=1", "BALENARC_DISABLE_UPDATE_CHECK=1", "CI=1"}
	out, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(out)
}

// TestBalenaCLI uses the directory of the preset balena-cli through a rotation and a revocation.
func TestBalenaCLI(t *testing.T) {
	needClients(t, "node")
	t.Parallel()
	s, data := newClientStage(t)
	p := s.start("run")
	s.ready()
	for _, when := range []string{"with the first token", "after a rotation"} {
		if code, out := s.balenaCLI(data, "whoami"); code != 0 || !strings.Contains(out, "USERNAME: injector") {
			t.Errorf("%s: whoami: exit %d: %s", when, code, out)
		}
		if code, out := s.balenaCLI(data, "fleet", "list"); code != 0 || !strings.Contains(out, "acme/thermostat") {
			t.Errorf("%s: fleet list: exit %d: %s", when, code, out)
		}
		if when == "with the first token" {
			s.rotate()
		}
	}
	// What the CLI keeps beside the token does not disturb, nor is it disturbed.
	if _, err := os.Stat(filepath.Join(data, "cachedUsername")); err != nil {
		t.Errorf("the CLI could not write into its directory: %v", err)
	}
	s.ready()
	// The stop removes the file; somebody who has a copy is refused by the server.
	kept := filepath.Join(s.dir, "kept")
	if err := os.CopyFS(kept, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	p.stop()
	s.server.Forget()
	if code, out := s.balenaCLI(kept, "whoami"); code == 0 || !s.refused() {
		t.Errorf("after the stop: exit %d, and the server has seen %+v: %s", code, s.server.Requests(), out)
	}
}

// refused reports whether the server has seen a token that it does not accept.
func (s *stage) refused() bool {
	return slices.ContainsFunc(s.server.Requests(), func(r balenatest.Request) bool { return r.Status == http.StatusUnauthorized })
}

// TestBalenaSDK has one process that keeps its SDK, and makes another one when it is told to.
func TestBalenaSDK(t *testing.T) {
	node := needClients(t, "node")
	t.Parallel()
	s, data := newClientStage(t)
	s.set("INJECTOR_OVERLAP", "2s")
	p := s.start("run")
	s.ready()
	cmd := exec.Command(node, "reader.js")
	cmd.Dir = clientsDir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "BALENARC_DATA_DIRECTORY=" + data, "API_URL=" + s.url + "/"}
	ask := converse(t, cmd)
	if got := ask("who"); got != "sees 1" {
		t.Errorf("with the first token: %s", got)
	}
	if got := ask("fleets"); got != "sees 1 fleets" {
		t.Errorf("with the first token: %s", got)
	}
	s.rotate() // the first key was deleted, not only replaced
	if got := ask("who"); strings.HasPrefix(got, "sees") {
		t.Error("an SDK that was made before a rotation read the file again: docs/apps.md says that it does not")
	}
	if got := ask("fleets"); got != "sees 0 fleets" {
		t.Errorf("an SDK that was made before a rotation %s: docs/apps.md says that it turns anonymous", got)
	}
	if got := ask("again"); got != "sees 1" {
		t.Errorf("with the second token: %s", got)
	}
	p.stop()
	if got := ask("who"); strings.HasPrefix(got, "sees") {
		t.Error("a revoked token works")
	}
}

// converse starts a program that answers each line with a line.
func converse(t *testing.T, cmd *exec.Cmd) (ask func(line string) string) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	answers := bufio.NewReader(out)
	return func(line string) string {
		t.Helper()
		if _, err := io.WriteString(in, line+"\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := answers.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(answer)
	}
}

// TestAnExporterUnderExec runs an app that reads a variable once at its start, as the balena
// Prometheus exporter does: extensions do not disturb it, and a rotation restarts it.
func TestAnExporterUnderExec(t *testing.T) {
	python := needClients(t, "python3")
	t.Parallel()
	s := newExecStage(t)
	s.set("INJECTOR_TTL", "10s", "INJECTOR_MAX_TTL", "18s", "INJECTOR_OVERLAP", "2s", "INJECTOR_CHECK_INTERVAL", "1s", "HOME", s.dir)
	p := s.start("exec", "--", python, "-u", filepath.Join(clientsDir, "exporter.py"))
	s.eventually("an extension", func() bool { return s.server.Count("extend") > 0 })
	s.eventually("a rotation and its end", func() bool { return s.server.Count("mint") > 1 && s.server.Count("revoke") > 0 })
	s.eventually("the restarted exporter", func() bool { return len(exporters(t, p.stdout.String())) == s.server.Count("mint") })
	p.signal(syscall.SIGTERM)
	if code := p.wait(8 * time.Second); code != 143 {
		t.Errorf("exit %d", code)
	}
	if pids := exporters(t, p.stdout.String()); len(pids) != s.server.Count("mint") {
		t.Errorf("%d processes for %d keys: %v", len(pids), s.server.Count("mint"), pids)
	}
	s.wantLive(0)
}

// exporters are the processes of the exporter that have had answers, and how many each had. None is refused.
func exporters(t *testing.T, out string) map[string]int {
	t.Helper()
	pids := map[string]int{}
	for line := range strings.Lines(out) {
		var pid, what, who string
		if _, err := fmt.Sscan(line, &pid, &what, &who); err != nil {
			continue
		}
		pids[pid]++
		if what != "user" {
			t.Errorf("the exporter was %s", strings.TrimSpace(line))
		}
	}
	return pids
}
