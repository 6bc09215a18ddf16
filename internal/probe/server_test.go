package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/internal/words"
)

// running is an agent that answers on a socket in a state directory, and on an address.
type running struct {
	server  *Server
	dir     string
	address string
	report  atomic.Pointer[Report]
	alive   atomic.Bool
	asked   chan string // what a person has asked it for
}

// start runs one until the test's end.
func start(t *testing.T, dir string, r Report) *running {
	t.Helper()
	a := &running{dir: dir, asked: make(chan string, 10)}
	a.report.Store(&r)
	a.alive.Store(true)
	a.server = &Server{
		Report:  func() Report { return *a.report.Load() },
		Alive:   a.alive.Load,
		Metrics: func(w io.Writer) { _, _ = io.WriteString(w, "some_metric 1\n") },
		Ask: func(what string) (string, error) {
			a.asked <- what
			if what != "handover" {
				return "", errors.New("there is nothing of that name to ask for")
			}
			return "the next stop hands over", nil
		},
	}
	socket, tcp := listenAt(t, dir), listenTCP(t)
	a.address = "http://" + tcp.Addr().String()
	serve(t, a.server, socket, tcp)
	return a
}

// listenAt makes the socket of a state directory.
func listenAt(t *testing.T, dir string) net.Listener {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	l, err := Listen(root, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// serve answers until the test's end. Then it wants that to be no error.
func serve(t *testing.T, s *Server, socket, tcp net.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, socket, tcp) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("it was told to end, and says: %v", err)
		}
	})
}

// leaveDead leaves a socket as an agent that was killed does.
func leaveDead(dir string) error {
	l, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		return err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l.Close()
}

// fake is another server in an agent's place.
func fake(t *testing.T, dir string, h http.HandlerFunc) {
	t.Helper()
	srv := &http.Server{Handler: h}
	l := listenAt(t, dir)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
}

// do sends a request over TCP.
func do(t *testing.T, method, url string) (code int, header http.Header, body string) {
	t.Helper()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(raw)
}

// TestProbesSayTheSameOnBothListeners whether it lives and whether apps can rely on it, in a status and a line.
func TestProbesSayTheSameOnBothListeners(t *testing.T) {
	a := start(t, t.TempDir(), judged(good("")))
	for name, c := range map[string]struct {
		alive bool
		r     Report
		paths map[string]string
	}{
		"well": {
			alive: true,
			r:     judged(good("")),
			paths: map[string]string{
				"/livez":   "200 alive\n",
				"/readyz":  "200 ready\n",
				"/metrics": "200 some_metric 1\n",
			},
		},
		"not ready": {
			alive: true,
			r:     judged(bad("", "running", "there is no key yet")),
			paths: map[string]string{
				"/livez":  "200 alive\n",
				"/readyz": "503 not ready: there is no key yet\n",
			},
		},
		"stuck": {
			r: judged(good("")),
			paths: map[string]string{
				"/livez":   "503 the main loop makes no progress\n",
				"/readyz":  "200 ready\n",
				"/metrics": "200 some_metric 1\n",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			a.alive.Store(c.alive)
			a.report.Store(&c.r)
			for path, want := range c.paths {
				code, header, body := do(t, "GET", a.address+path)
				if got := fmt.Sprint(code, " ", body); got != want {
					t.Errorf("%s over TCP is %q, not %q", path, got, want)
				}
				if kind := header.Get("Content-Type"); path == "/metrics" && !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
					t.Errorf("metrics are %s", kind)
				}
				code, raw, err := Ask(t.Context(), a.dir, path, 0)
				if got := fmt.Sprint(code, " ", string(raw)); err != nil || got != want {
					t.Errorf("%s through the socket is %q, not %q: %v", path, got, want, err)
				}
			}
		})
	}
}

// TestOnlyTheOwnerIsToldAndObeyed as everybody can reach the address, and only the owner the socket.
func TestOnlyTheOwnerIsToldAndObeyed(t *testing.T) {
	a := start(t, t.TempDir(), judged(good("", "/secrets/token")))
	for _, c := range []struct{ method, path string }{
		{"GET", "/status"},
		{"POST", "/ask/handover"},
		{"GET", "/ask/handover"},
		{"GET", "/"},
		{"GET", "/debug/pprof/"},
	} {
		if code, _, body := do(t, c.method, a.address+c.path); code != http.StatusNotFound {
			t.Errorf("%s %s over TCP: %d %s", c.method, c.path, code, body)
		}
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		if code, _, _ := do(t, "POST", a.address+path); code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s over TCP: %d", path, code)
		}
	}
	if code, _, err := Ask(t.Context(), a.dir, "/ask/handover", 0); err != nil || code == http.StatusOK {
		t.Errorf("a question is taken for an order: %d, %v", code, err)
	}
	if len(a.asked) != 0 {
		t.Errorf("it did %q", <-a.asked)
	}
	// Nor does it say to everybody which outputs it keeps.
	if code, _, body := do(t, "GET", a.address+"/readyz?output=/another"); code != http.StatusOK || body != "ready\n" {
		t.Errorf("about another output over TCP: %d %s", code, body)
	}
	code, raw, err := Ask(t.Context(), a.dir, "/readyz?output=/another", 0)
	if err != nil || code != http.StatusServiceUnavailable || !strings.Contains(string(raw), "keeps /secrets/token, and not /another") {
		t.Errorf("about another output through the socket: %d %s %v", code, raw, err)
	}
}

// TestTellHasItDone and returns its answer, which is an error where it cannot.
func TestTellHasItDone(t *testing.T) {
	a := start(t, t.TempDir(), judged(good("")))
	if text, err := Tell(t.Context(), a.dir, "handover"); err != nil || text != "the next stop hands over" {
		t.Errorf("it answers %q: %v", text, err)
	}
	text, err := Tell(t.Context(), a.dir, "dance")
	if err == nil || text != "" || err.Error() != "there is nothing of that name to ask for" {
		t.Errorf("it answers %q: %v", text, err)
	}
	if first, second := <-a.asked, <-a.asked; first != "handover" || second != "dance" {
		t.Errorf("it was asked for %q and %q", first, second)
	}
}

// TestAskReportTellsAll that the agent knows of itself, to who asks about its outputs and to others.
func TestAskReportTellsAll(t *testing.T) {
	k := good("deploy", "/secrets/deploy", "/secrets/a,b&c")
	k.Key = &agent.KeyStatus{Name: "injector-1", ID: 5, Kind: "user", Expiry: at.Add(time.Hour), Created: at, Verified: true}
	k.Schedule.ExtendAt, k.Trouble = at.Add(time.Minute), []agent.Trouble{trouble("check the key", "503", "wait")}
	k.TTL, k.MaxTTL, k.Untold = words.Seconds(time.Hour), words.Seconds(24*time.Hour), []string{"nginx"}
	k.Credential = &Credential{"it was refused", "mend it"}
	r := judged(k)
	r.Version, r.Command, r.PID, r.Started, r.Ahead = "1.2.3", "run", 42, at, words.Seconds(2*time.Minute)
	a := start(t, t.TempDir(), r)
	for _, outputs := range [][]string{nil, {"/secrets/a,b&c"}} {
		got, err := AskReport(t.Context(), a.dir, outputs)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("about %q it tells %+v, not %+v: %v", outputs, got, r, err)
		}
	}
	got, err := AskReport(t.Context(), a.dir, []string{"/secrets/a", "/x"})
	if err != nil || got.State != Another || !strings.HasSuffix(got.Reason, "not /secrets/a") {
		t.Errorf("about others it is %s, because %q: %v", got.State, got.Reason, err)
	}
}

// TestServeEndsWhenItIsTold at once, however many are connected, and when a listener fails.
func TestServeEndsWhenItIsTold(t *testing.T) {
	s := &Server{Alive: func() bool { return true }}
	dir := t.TempDir()
	socket, tcp := listenAt(t, dir), listenTCP(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, socket, tcp) }()
	conn, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if code, _, err := Ask(t.Context(), dir, "/livez", 0); err != nil || code != http.StatusOK {
		t.Fatalf("it does not answer: %d, %v", code, err)
	}
	ends := func() error {
		select {
		case err := <-done:
			return err
		case <-time.After(time.Minute):
			t.Fatal("it does not end")
			return nil
		}
	}
	cancel()
	if err := ends(); err != nil {
		t.Errorf("it says: %v", err)
	}
	if _, _, err := Ask(t.Context(), dir, "/livez", 0); !errors.Is(err, ErrNoAgent) {
		t.Errorf("it still answers: %v", err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("who was connected is not told")
	}

	socket, tcp = listenAt(t, dir), listenTCP(t)
	go func() { done <- s.Serve(t.Context(), socket, tcp) }()
	if code, _, err := Ask(t.Context(), dir, "/livez", 0); err != nil || code != http.StatusOK {
		t.Fatalf("it does not answer: %d, %v", code, err)
	}
	_ = tcp.Close()
	if err := ends(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a listener has failed, and it says: %v", err)
	}
	if _, _, err := Ask(t.Context(), dir, "/livez", 0); !errors.Is(err, ErrNoAgent) {
		t.Errorf("the other one still answers: %v", err)
	}
}

// TestTheSocketTakesTheDeadOnesPlace and is gone when it is closed, whatever has become of the directory.
func TestTheSocketTakesTheDeadOnesPlace(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, SocketName)
	for what, plant := range map[string]func() error{
		"a dead agent's": func() error { return leaveDead(dir) },
		"nothing":        func() error { return nil },
		"a file":         func() error { return os.WriteFile(name, nil, 0o600) },
		"a link":         func() error { return os.Symlink("/dev/null", name) },
	} {
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		if err := CheckSocket(dir); err != nil {
			t.Errorf("%s would be in the way: %v", what, err)
		}
		l := listenAt(t, dir)
		if info, err := os.Lstat(name); err != nil || info.Mode().Type() != os.ModeSocket {
			t.Errorf("%s: there is no socket: %v", what, err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("%s: closing it: %v", what, err)
		}
		if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the socket is left: %v", what, err)
		}
	}

	l := listenAt(t, dir)
	if err := errors.Join(os.Remove(name), l.Close()); err != nil {
		t.Errorf("closing one that was removed: %v", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	if l, err = Listen(root, dir); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(root.Close(), l.Close()); err != nil {
		t.Errorf("closing one whose directory is closed: %v", err)
	}
}

// TestADirectoryInTheSocketsPlace is not removed: the check says so, and so does who would make the socket.
func TestADirectoryInTheSocketsPlace(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, SocketName)
	if err := os.MkdirAll(filepath.Join(name, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := CheckSocket(dir); err == nil || err.Error() != name+" is a directory: remove it" {
		t.Errorf("the check says: %v", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	if l, err := Listen(root, dir); err == nil {
		_ = l.Close()
		t.Error("the socket is made")
	}
	if _, err := os.Lstat(filepath.Join(name, "full")); err != nil {
		t.Error(err)
	}
	if err := CheckSocket(filepath.Join(dir, "absent")); err != nil {
		t.Errorf("a directory that is not there yet: %v", err)
	}
}

// TestTheSocketIsInTheOpenDirectory whatever its path leads to by now.
func TestTheSocketIsInTheOpenDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	if err := errors.Join(os.Rename(dir, dir+"-old"), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(root, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir+"-old", SocketName)); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, SocketName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is where the path leads: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir+"-old", SocketName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
}

// TestAPathThatIsTooLongForASocket troubles neither the one that makes it nor those that ask there.
func TestAPathThatIsTooLongForASocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a := start(t, dir, judged(good("")))
	if code, body, err := Ask(t.Context(), a.dir, "/readyz", 0); err != nil || code != http.StatusOK {
		t.Errorf("it answers %d %s: %v", code, body, err)
	}
	if _, _, err := Ask(t.Context(), a.dir+"-absent", "/readyz", 0); !errors.Is(err, ErrNoAgent) {
		t.Errorf("where nobody is: %v", err)
	}
}

// TestAReportHasNoMoreThanItSays in JSON: what is not known is left out, but for what everybody asks about.
func TestAReportHasNoMoreThanItSays(t *testing.T) {
	raw, err := json.Marshal(Report{State: Absent, Reason: "none was ever here", StateDir: "/secrets/.injector"})
	const want = `{"state":"absent","ready":false,"reason":"none was ever here","state_directory":"/secrets/.injector","keys":null}`
	if err != nil || string(raw) != want {
		t.Errorf("it is %s, not %s: %v", raw, want, err)
	}
}
