package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// measureMemory runs the sidecar over HTTPS until it has extended its key a thousand times. The
// server's clock runs fast, so that each extension is due at once, and the binary is built
// without the request budget; nothing else differs from the real one.
func measureMemory(binary, dir string) (megabytes float64, err error) {
	server := balenatest.New(balenatest.Options{})
	ca := filepath.Join(dir, "ca.pem")
	srv, err := serveTLS(server, ca)
	if err != nil {
		return 0, err
	}
	defer srv.Close()
	output := filepath.Join(dir, "memory", "token")
	if err := os.Mkdir(filepath.Dir(output), 0o700); err != nil {
		return 0, err
	}
	cmd := exec.Command(binary, "run")
	cmd.Env = append(environment(server, srv.URL, output), "INJECTOR_CA_FILE="+ca, "INJECTOR_TTL=10s", "INJECTOR_MAX_TTL=0",
		"INJECTOR_LOG_LEVEL=error", "INJECTOR_LISTEN=127.0.0.1:0")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() { _ = cmd.Process.Kill() }()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	descriptors := 0
	for server.Count("extend") < extensions {
		if server.Count("extend") > 10 && descriptors == 0 {
			descriptors = countDescriptors(cmd.Process.Pid)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return 0, fmt.Errorf("only %d extensions", server.Count("extend"))
		}
	}
	kb, err := resident(cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	own, err := statusOf(cmd.Process.Pid, "RssAnon:")
	if err != nil {
		return 0, err
	}
	fmt.Printf("resident over HTTPS after %d extensions: %.1f MB (at most %.1f, aim 12), %.1f MB of it its own, the rest pages of the "+
		"binary; descriptors %d, at first %d\n", server.Count("extend"), float64(kb)*1024/1e6, maxMB, float64(own)*1024/1e6,
		countDescriptors(cmd.Process.Pid), descriptors)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	return float64(kb) * 1024 / 1e6, cmd.Wait()
}

// serveTLS serves over HTTPS with a clock that runs fast, and writes down whom to trust for it.
func serveTLS(server *balenatest.Server, ca string) (*httptest.Server, error) {
	srv := httptest.NewUnstartedServer(fastClock(server))
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	srv.StartTLS()
	return srv, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o644)
}

// fastClock lets the server's clock jump ahead between an extension and its read-back, so that
// the key looks as if it were about to expire.
func fastClock(server *balenatest.Server) http.Handler {
	ahead := time.Duration(0)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			defer func() { ahead += 7 * time.Second; server.ShiftClock(ahead) }()
		}
		server.ServeHTTP(w, r)
	})
}

func resident(pid int) (kb int, err error) { return statusOf(pid, "VmRSS:") }

// statusOf reads a number from what the kernel says of a process.
func statusOf(pid int, name string) (kb int, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(raw), "\n"+name)
	_, err = fmt.Sscan(rest, &kb)
	return kb, err
}

func countDescriptors(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries)
}
